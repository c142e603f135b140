"""A gRPC client that knows nothing of the schema: services and messages come from server reflection."""

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from google.rpc import error_details_pb2, status_pb2  # noqa: F401  (details of errors)
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

DETAIL_TYPES = {
    f"type.googleapis.com/google.rpc.{name}": getattr(error_details_pb2, name)
    for name in ("BadRequest", "ErrorInfo", "PreconditionFailure", "ResourceInfo", "RetryInfo", "Help", "QuotaFailure")
}


class ApiError(Exception):
    """A call that failed: `code` ("NOT_FOUND"), `message`, and `details` as dicts by type name."""

    def __init__(self, error):
        self.code = error.code().name
        self.message = error.details()
        self.details = {}
        for key, value in error.trailing_metadata() or ():
            if key != "grpc-status-details-bin":
                continue
            for packed in status_pb2.Status.FromString(value).details:
                if packed.type_url in DETAIL_TYPES:
                    detail = DETAIL_TYPES[packed.type_url].FromString(packed.value)
                    self.details[packed.type_url.rpartition(".")[2]] = to_dict(detail)
        super().__init__(f"{self.code}: {self.message} {self.details}")


def to_dict(message):
    """Returns a message as a dict with proto field names; plain fields are always there."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


class Api:
    """Calls any method of any service of one server: api.call("switchyard.v1.JobService", "GetJob", name=...)."""

    def __init__(self, target):
        self.channel = grpc.insecure_channel(target, options=[("grpc.max_reconnect_backoff_ms", 500)])
        self._database = ProtoReflectionDescriptorDatabase(self.channel)
        self._pool = descriptor_pool.DescriptorPool(self._database)

    def services(self):
        """Returns the full names of the server's services."""
        return sorted(self._database.get_services())

    def methods(self, service):
        """Returns the names of a service's methods."""
        return [method.name for method in self._pool.FindServiceByName(service).methods]

    def call(self, service, method, timeout=10, **request):
        """Returns the answer of a unary method as a dict."""
        stub, message = self._prepare(service, method, request)
        try:
            return to_dict(stub(message, timeout=timeout))
        except grpc.RpcError as error:
            raise ApiError(error) from None

    def stream(self, service, method, timeout=60, **request):
        """Yields the answers of a server-streaming method as dicts."""
        stub, message = self._prepare(service, method, request)
        answers = stub(message, timeout=timeout)
        try:
            for answer in answers:
                yield to_dict(answer)
        except grpc.RpcError as error:
            raise ApiError(error) from None
        finally:
            answers.cancel()

    def healthy(self):
        """True when the server's health service answers SERVING."""
        check = self.channel.unary_unary("/grpc.health.v1.Health/Check")  # raw bytes: its schema is not in reflection
        try:
            return check(b"", timeout=2) == b"\x08\x01"  # field 1, SERVING
        except grpc.RpcError:
            return False

    def close(self):
        """Ends the connection."""
        self.channel.close()

    def _prepare(self, service, method, request):
        descriptor = self._pool.FindServiceByName(service).FindMethodByName(method)
        make = self.channel.unary_stream if descriptor.server_streaming else self.channel.unary_unary
        stub = make(
            f"/{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(descriptor.output_type).FromString,
        )
        return stub, json_format.ParseDict(request, message_factory.GetMessageClass(descriptor.input_type)())
