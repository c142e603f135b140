// What a request is and which resource it names, read from its descriptor: one reading for all of
// them.
#pragma once

#include <google/protobuf/message.h>

#include <string>

namespace switchyard::coordinator {

// "switchyard.v1.JobService/CreateJob": the method that takes this message, each message being the
// request of one method. Empty when it is no request of ours.
std::string MethodOf(const google::protobuf::Message& request);
// Whether its method answers with a stream.
bool AnswersWithStream(const google::protobuf::Message& request);

// Its `name`, `parent`, or for a spec "projects/{project}/jobs/{job_id}"; empty when it has none.
std::string ResourceOf(const google::protobuf::Message& request);

// Project of a resource name; "*" for "projects/-", nodes, and whatever is no name of a project's
// thing.
std::string ProjectOf(const std::string& resource);

}  // namespace switchyard::coordinator
