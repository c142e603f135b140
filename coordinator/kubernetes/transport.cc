#include "coordinator/kubernetes/transport.h"

#include <curl/curl.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"

namespace switchyard::coordinator {
namespace {

using Steady = std::chrono::steady_clock;

constexpr size_t kMaxBody = size_t{64} << 20;
constexpr std::chrono::milliseconds kMaxWait{60000};

// libcurl's handles are all of one type.
struct DeleteEasy {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
};
struct DeleteMulti {
  void operator()(CURLM* handle) const { curl_multi_cleanup(handle); }
};
struct DeleteList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using Headers = std::unique_ptr<curl_slist, DeleteList>;

void Add(Headers& headers, const std::string& line) {
  headers.reset(curl_slist_append(headers.release(), line.c_str()));
}

struct Receiver {
  CURL* handle = nullptr;
  const HttpsRequest* request = nullptr;
  std::string body;
  bool too_long = false;
};

size_t Receive(char* data, size_t one, size_t size, void* to) {
  Receiver& receiver = *static_cast<Receiver*>(to);
  long status = 0;  // NOLINT: libcurl's type
  curl_easy_getinfo(receiver.handle, CURLINFO_RESPONSE_CODE, &status);
  const absl::string_view bytes(data, one * size);
  if (status == 200 && receiver.request->on_bytes != nullptr) {
    return receiver.request->on_bytes(bytes) ? bytes.size() : CURL_WRITEFUNC_ERROR;
  }
  receiver.too_long = receiver.body.size() + bytes.size() > kMaxBody;
  if (receiver.too_long) return CURL_WRITEFUNC_ERROR;
  receiver.body.append(bytes.data(), bytes.size());
  return bytes.size();
}

}  // namespace

struct Transport::Impl {
  std::string authority;
  // A multi handle, because its wait can be woken; it also keeps the connection open.
  std::unique_ptr<CURLM, DeleteMulti> multi;
  std::unique_ptr<CURL, DeleteEasy> easy;
  std::atomic<bool> stopping{false};

  void SetOptions(const HttpsRequest& request, Receiver& receiver, const Headers& headers,
                  char* error);
};

void Transport::Impl::SetOptions(const HttpsRequest& request, Receiver& receiver,
                                 const Headers& headers, char* error) {
  CURL* handle = easy.get();
  curl_easy_reset(handle);  // keeps connections
  curl_easy_setopt(handle, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "https");
  curl_easy_setopt(handle, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  curl_easy_setopt(handle, CURLOPT_PROXY, "");  // a token goes to the server itself or nowhere
  curl_easy_setopt(handle, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  if (!request.body.empty()) {
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, request.body.data());
    curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE,
                     static_cast<curl_off_t>(request.body.size()));
  }
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(handle, CURLOPT_SSL_VERIFYPEER, 1L);
  curl_easy_setopt(handle, CURLOPT_SSL_VERIFYHOST, 2L);
  curl_easy_setopt(handle, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  if (!authority.empty()) {
    curl_easy_setopt(handle, CURLOPT_CAINFO, authority.c_str());
    curl_easy_setopt(handle, CURLOPT_CAPATH, nullptr);
  }
  curl_easy_setopt(handle, CURLOPT_CA_CACHE_TIMEOUT, 60L);  // authorities are renewed, too
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, 10000L);
  curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, static_cast<long>(request.timeout.count()));
  // A watch may be silent for long: the kernel finds out when the other end is gone.
  curl_easy_setopt(handle, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt(handle, CURLOPT_TCP_KEEPIDLE, 20L);
  curl_easy_setopt(handle, CURLOPT_TCP_KEEPINTVL, 5L);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, Receive);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &receiver);
  curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, error);
}

Transport::Transport(std::string authority) : impl_(std::make_unique<Impl>()) {
  // Once a process, and before other threads use libcurl: statics are made one at a time.
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  (void)ready;
  impl_->authority = std::move(authority);
  impl_->multi.reset(curl_multi_init());
  impl_->easy.reset(curl_easy_init());
}

Transport::~Transport() = default;

absl::StatusOr<HttpsResponse> Transport::Send(const HttpsRequest& request) {
  Receiver receiver;
  receiver.handle = impl_->easy.get();
  receiver.request = &request;
  Headers headers;
  Add(headers, "Accept: application/json");
  Add(headers, "Expect:");  // no round trip before a body
  if (!request.body.empty()) Add(headers, "Content-Type: application/json");
  if (!request.token.empty()) Add(headers, absl::StrCat("Authorization: Bearer ", request.token));
  char error[CURL_ERROR_SIZE] = {};
  impl_->SetOptions(request, receiver, headers, error);
  CURLM* multi = impl_->multi.get();
  curl_multi_add_handle(multi, receiver.handle);
  CURLcode result = CURLE_ABORTED_BY_CALLBACK;
  int running = 1;
  while (!impl_->stopping && running > 0) {
    if (curl_multi_perform(multi, &running) != CURLM_OK) break;
    if (running > 0) curl_multi_poll(multi, nullptr, 0, 1000, nullptr);
  }
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi, &left)) {
    if (message->msg == CURLMSG_DONE) result = message->data.result;
  }
  HttpsResponse response;
  long status = 0;  // NOLINT: libcurl's type
  curl_easy_getinfo(receiver.handle, CURLINFO_RESPONSE_CODE, &status);
  curl_off_t retry_after = 0;
  curl_easy_getinfo(receiver.handle, CURLINFO_RETRY_AFTER, &retry_after);
  curl_multi_remove_handle(multi, receiver.handle);
  if (impl_->stopping) return absl::CancelledError("the coordinator is ending");
  const bool ended_here = result == CURLE_WRITE_ERROR && !receiver.too_long;
  if (result != CURLE_OK && !ended_here) {
    std::string message = absl::StrCat(request.method, " ", request.url, " failed: ");
    if (receiver.too_long) {
      absl::StrAppend(&message, "the answer is longer than ", kMaxBody >> 20, " MiB");
    } else {
      absl::StrAppend(&message, error[0] != '\0' ? error : curl_easy_strerror(result));
    }
    if (result == CURLE_SSL_CONNECT_ERROR || result == CURLE_PEER_FAILED_VERIFICATION ||
        result == CURLE_SSL_CACERT_BADFILE) {
      absl::StrAppend(&message, "; is ", impl_->authority,
                      " of the authority of its certificate, and is it issued for this host?");
    }
    return result == CURLE_OPERATION_TIMEDOUT ? absl::DeadlineExceededError(message)
                                              : absl::UnavailableError(message);
  }
  response.status = static_cast<int>(status);
  response.body = std::move(receiver.body);
  if (retry_after > 0) response.retry_after_seconds = static_cast<int>(retry_after);
  return response;
}

bool Transport::Sleep(std::chrono::milliseconds duration) {
  const auto until = Steady::now() + duration;
  while (!impl_->stopping) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Steady::now());
    if (left.count() <= 0) return true;
    curl_multi_poll(impl_->multi.get(), nullptr, 0,
                    static_cast<int>(std::min(left, kMaxWait).count()), nullptr);
  }
  return false;
}

void Transport::Stop() {
  impl_->stopping = true;
  curl_multi_wakeup(impl_->multi.get());
}

}  // namespace switchyard::coordinator
