#include "coordinator/status_page.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "coordinator/status_page/embedded.h"

namespace shardplane {
namespace {

HttpResponse Answer(const HttpRequest& request) {
  if (request.path != "/") {
    return {404, absl::StrCat("no such path; the status page is at /; got: ",
                              request.path, "\n")};
  }
  HttpResponse response{
      .content_type = "text/html; charset=utf-8",
      .headers = {{"Cache-Control", "no-cache"},
                  {"ETag", absl::StrCat("W/", kStatusPageTag)},
                  {"Content-Security-Policy", kStatusPagePolicy},
                  {"X-Frame-Options", "DENY"},
                  {"Referrer-Policy", "no-referrer"},
                  {"Cross-Origin-Opener-Policy", "same-origin"},
                  {"Cross-Origin-Resource-Policy", "same-origin"}}};
  if (absl::StrContains(request.if_none_match, kStatusPageTag)) {
    response.code = 304;
  } else {
    response.body = kStatusPage;
  }
  return response;
}

}  // namespace

HttpRoute StatusPageRoute() { return {"/", Answer}; }

}  // namespace shardplane
