// Calls any method of a server by its path, whether it is served or not.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

namespace switchyard::coordinator {

// `path` is "/service/method", in any bytes; request and answer are messages in their wire format.
// A stream is ended after its first answer.
inline grpc::Status CallByName(const std::shared_ptr<grpc::Channel>& channel,
                               const std::string& path, const std::string& request,
                               std::string* answer = nullptr) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  grpc::CompletionQueue queue;
  const grpc::Slice slice(request);
  const auto call = stub.PrepareCall(&context, path, &queue);
  const auto step = [&] {
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    return ok;
  };
  call->StartCall(nullptr);
  step();
  call->WriteLast(grpc::ByteBuffer(&slice, 1), {}, nullptr);
  step();
  grpc::ByteBuffer received;
  call->Read(&received, nullptr);
  const bool answered = step();
  if (answered) context.TryCancel();
  if (answered && answer != nullptr) {
    grpc::Slice whole;
    EXPECT_TRUE(received.DumpToSingleSlice(&whole).ok());
    answer->assign(whole.begin(), whole.end());
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  step();
  queue.Shutdown();
  return answered ? grpc::Status::OK : status;
}

}  // namespace switchyard::coordinator
