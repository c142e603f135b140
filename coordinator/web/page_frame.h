// What every page of the coordinator shares: head, top bar, assets. Pure.
#pragma once

#include <chrono>
#include <string>

namespace switchyard::coordinator {

struct Page {
  std::string title;           // plain text
  std::string trail;           // HTML behind the brand in the top bar
  std::string main;            // "<main>...</main>"
  std::chrono::seconds every;  // the script asks for the page again that often
};

// The page as HTML. It loads AssetText("/assets/...") and nothing else; no inline style or script.
std::string RenderPage(const Page& page);

// Style sheet, scripts and icon by path, null for another path.
struct Asset {
  const char* content_type;
  std::string text;
};
const Asset* FindAsset(const std::string& path);

// For all pages: only this server's own files, no frames, no forms.
extern const char kPagePolicy[];

}  // namespace switchyard::coordinator
