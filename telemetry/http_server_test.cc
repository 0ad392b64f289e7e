#include "telemetry/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "telemetry/metrics.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// The whole answer, head and body, to one request on a connection of its own.
std::string Exchange(const HttpServer& server, absl::string_view method,
                     absl::string_view target, absl::string_view headers = "") {
  const std::pair<std::string, std::string> host_port =
      absl::StrSplit(server.address(), ':');
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(host_port.second, &port));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  EXPECT_EQ(inet_pton(AF_INET, host_port.first.c_str(), &address.sin_addr), 1);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)),
            0);
  const std::string request = absl::StrCat(
      method, " ", target, " HTTP/1.1\r\nHost: test\r\n", headers, "\r\n");
  EXPECT_EQ(write(fd, request.data(), request.size()),
            static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof(buffer))) > 0;) {
    answer.append(buffer, n);
  }
  close(fd);
  return answer;
}

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest() {
    absl::StatusOr<std::unique_ptr<HttpServer>> server = HttpServer::Start(
        {.metrics = &metrics_,
         .live = {{"executor", [] { return absl::OkStatus(); }}},
         .ready = {{"registered", [this] {
                      return registered_
                                 ? absl::OkStatus()
                                 : absl::UnavailableError("no lease yet");
                    }}}});
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  std::string Get(absl::string_view target) {
    return Exchange(*server_, "GET", target);
  }

  std::atomic<bool> registered_ = false;
  Metrics metrics_{{.component = "worker"}};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, ShowsTheBoundAddress) {
  EXPECT_THAT(server_->address(),
              AllOf(StartsWith("127.0.0.1:"), Not(EndsWith(":0"))));
}

TEST_F(HttpServerTest, ServesMetrics) {
  metrics_.Add(Counter::kSteps, {"train", "ok"}, 12);
  EXPECT_THAT(
      Get("/metrics"),
      AllOf(StartsWith("HTTP/1.1 200 OK\r\n"),
            HasSubstr("Content-Type: text/plain; version=0.0.4"),
            HasSubstr("shardplane_steps_total{phase=\"train\",result=\"ok\"} "
                      "12\n")));
}

TEST_F(HttpServerTest, IsLiveWithoutBeingReady) {
  EXPECT_THAT(Get("/livez"),
              AllOf(StartsWith("HTTP/1.1 200 "), EndsWith("\r\n\r\nok\n")));
  EXPECT_THAT(Get("/readyz"),
              AllOf(StartsWith("HTTP/1.1 503 "),
                    EndsWith("\r\n\r\n[-]registered failed: UNAVAILABLE: no "
                             "lease yet\nnot ok\n")));
}

TEST_F(HttpServerTest, BecomesReady) {
  registered_ = true;
  EXPECT_THAT(Get("/readyz"),
              AllOf(StartsWith("HTTP/1.1 200 "), EndsWith("\r\n\r\nok\n")));
}

TEST_F(HttpServerTest, VerboseListsEveryCheck) {
  EXPECT_THAT(Get("/livez?verbose"),
              EndsWith("\r\n\r\n[+]ping ok\n[+]executor ok\nok\n"));
  EXPECT_THAT(Get("/readyz?x=1&verbose=true"),
              HasSubstr("[+]ping ok\n[-]registered failed: "));
}

TEST_F(HttpServerTest, ASubPathIsOneCheck) {
  EXPECT_THAT(Get("/readyz/ping"), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Get("/readyz/registered"), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(Get("/readyz/"), StartsWith("HTTP/1.1 503 "));
}

TEST_F(HttpServerTest, UnknownPathsAreNotFound) {
  for (const char* path :
       {"/", "/livez/nothing", "/livezz", "/metrics/x", "/etc/passwd"}) {
    EXPECT_THAT(Get(path), AllOf(StartsWith("HTTP/1.1 404 "),
                                 EndsWith(absl::StrCat("got: ", path, "\n"))));
  }
}

TEST_F(HttpServerTest, HeadHasNoBody) {
  EXPECT_THAT(Exchange(*server_, "HEAD", "/livez"),
              AllOf(StartsWith("HTTP/1.1 200 "),
                    HasSubstr("Content-Length: 3\r\n"), EndsWith("\r\n\r\n")));
}

TEST_F(HttpServerTest, OtherMethodsAreRefused) {
  EXPECT_THAT(Exchange(*server_, "DELETE", "/metrics"),
              AllOf(StartsWith("HTTP/1.1 405 "), HasSubstr("got: DELETE\n")));
}

// ---------------------------------------------------------------- routes

// Answers with what it was asked.
HttpResponse Echo(const HttpRequest& request) {
  return {200,
          absl::StrCat(request.path, "|", request.query, "|",
                       request.if_none_match),
          "text/x-echo",
          {{"X-Own", "yes"}}};
}

std::unique_ptr<HttpServer> StartWith(std::vector<HttpRoute> routes) {
  auto server = HttpServer::Start({.routes = std::move(routes)});
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

TEST(HttpRouteTest, GetsPathQueryAndETag) {
  const auto server = StartWith({{"/v1/", Echo}});
  EXPECT_THAT(
      Exchange(*server, "GET", "/v1/a?b=%20c", "If-None-Match: \"x\"\r\n"),
      AllOf(StartsWith("HTTP/1.1 200 OK\r\nContent-Type: text/x-echo\r\n"),
            HasSubstr("X-Own: yes\r\n"),
            HasSubstr("Cache-Control: no-store\r\n"),
            HasSubstr("X-Content-Type-Options: nosniff\r\n"),
            EndsWith("\r\n\r\n/v1/a|b=%20c|\"x\"")));
}

TEST(HttpRouteTest, TheLongestPrefixAnswers) {
  const auto say = [](std::string text) {
    return [text](const HttpRequest&) { return HttpResponse{200, text}; };
  };
  const auto server = StartWith(
      {{"/v1/", say("api")}, {"/v1/watch", say("watch")}, {"/", say("page")}});
  const std::pair<const char*, const char*> cases[] = {
      {"/", "page"},      {"/x", "page"},          {"/v1", "page"},
      {"/v1/a", "api"},   {"/v1/watch", "watch"},  {"/v1/watch/a", "api"},
      {"/livez", "ok\n"}, {"/readyz/ping", "ok\n"}};
  for (const auto& [path, text] : cases) {
    EXPECT_THAT(Exchange(*server, "GET", path),
                EndsWith(absl::StrCat("\r\n\r\n", text)))
        << path;
  }
}

TEST(HttpRouteTest, CompressesWhatIsLargeForWhoTakesIt) {
  const auto server =
      StartWith({{"/large",
                  [](const HttpRequest&) {
                    return HttpResponse{200, std::string(100'000, 'a')};
                  }},
                 {"/small", Echo}});
  const char* accept = "Accept-Encoding: gzip\r\n";
  const std::string packed = Exchange(*server, "GET", "/large", accept);
  EXPECT_THAT(packed, HasSubstr("Content-Encoding: gzip\r\n"));
  EXPECT_LT(packed.size(), 2000);
  const std::string plain = Exchange(*server, "GET", "/large");
  EXPECT_THAT(plain, AllOf(Not(HasSubstr("Content-Encoding")),
                           HasSubstr("Vary: Accept-Encoding\r\n")));
  EXPECT_GT(plain.size(), 100'000);
  EXPECT_THAT(Exchange(*server, "GET", "/small", accept),
              Not(HasSubstr("Content-Encoding")));
}

TEST(HttpRouteTest, NotModifiedHasNoLength) {
  const auto server = StartWith(
      {{"/", [](const HttpRequest&) { return HttpResponse{.code = 304}; }}});
  EXPECT_THAT(Exchange(*server, "GET", "/"),
              AllOf(StartsWith("HTTP/1.1 304 Not Modified\r\n"),
                    Not(HasSubstr("Content-Length")), EndsWith("\r\n\r\n")));
}

TEST(HttpRouteTest, CallsThatWaitLeaveRoomForProbes) {
  absl::Notification go;
  absl::BlockingCounter waiting(3);
  const auto server = StartWith({{"/wait",
                                  [&](const HttpRequest&) {
                                    waiting.DecrementCount();
                                    go.WaitForNotification();
                                    return HttpResponse{200, "done"};
                                  },
                                  /*max_calls=*/3}});
  std::vector<std::thread> clients;
  for (int i = 0; i < 3; ++i) {
    clients.emplace_back([&] {
      EXPECT_THAT(Exchange(*server, "GET", "/wait"), EndsWith("done"));
    });
  }
  waiting.Wait();
  EXPECT_THAT(Exchange(*server, "GET", "/wait"),
              AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("Retry-After: 2")));
  EXPECT_THAT(Exchange(*server, "GET", "/livez"), StartsWith("HTTP/1.1 200 "));
  go.Notify();
  for (std::thread& client : clients) client.join();
}

TEST(HttpServerStartTest, WithoutMetricsThePathIsNotFound) {
  auto server = HttpServer::Start({});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_THAT(Exchange(**server, "GET", "/metrics"),
              StartsWith("HTTP/1.1 404 "));
}

TEST(HttpServerStartTest, AnAddressInUseIsUnavailable) {
  auto first = HttpServer::Start({});
  ASSERT_TRUE(first.ok()) << first.status();
  auto second = HttpServer::Start({.listen = (*first)->address()});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr((*first)->address()));
}

TEST(HttpServerStartTest, ListensOnIpv6) {
  auto server = HttpServer::Start({.listen = "[::1]:0"});
  if (server.ok()) {
    EXPECT_THAT((*server)->address(), StartsWith("[::1]:"));
  } else {  // a machine without IPv6
    EXPECT_EQ(server.status().code(), absl::StatusCode::kUnavailable);
  }
}

TEST(HttpServerStartTest, RefusesBadAddresses) {
  for (const char* listen : {"", "9090", ":9090", "127.0.0.1", "127.0.0.1:http",
                             "127.0.0.1:70000"}) {
    auto server = HttpServer::Start({.listen = listen});
    EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(server.status().message()),
                EndsWith(absl::StrCat("got: \"", listen, "\"")));
  }
}

TEST(HttpServerStartTest, RefusesBadCheckNames) {
  const auto ok = [] { return absl::OkStatus(); };
  for (const char* name : {"", "ping", "Upper", "a/b"}) {
    auto server = HttpServer::Start({.ready = {{name, ok}}});
    EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument)
        << name;
  }
}

}  // namespace
}  // namespace shardplane
