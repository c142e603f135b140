#include "coordinator/web/page_frame.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "coordinator/report/html_text.h"
#include "coordinator/report/report_style.h"

namespace switchyard::coordinator {
namespace {

// Beyond the report's own: top bar, list of jobs, slots.
constexpr char kFrameStyle[] = R"css(
.top{position:sticky;top:0;z-index:5;background:var(--card);border-bottom:1px solid var(--line)}
.top>div{max-width:1160px;margin:0 auto;padding:9px 20px;display:flex;align-items:center;gap:10px;font-size:14px}
.top a{color:var(--ink);text-decoration:none}.top a:hover{text-decoration:underline}
.top .brand{font-weight:700;display:flex;align-items:center;gap:8px}
.top .trail{color:var(--mute);min-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;flex:1}
.live-state{display:flex;align-items:center;gap:7px;color:var(--soft);font-size:13px;white-space:nowrap}
.live-state::before{content:"";width:8px;height:8px;border-radius:50%;background:var(--mute)}
.live-state[data-state=live]::before{background:var(--good)}
.live-state[data-state=waiting]::before{background:var(--warn)}
a{color:var(--s1)}a:focus-visible,summary:focus-visible{outline:2px solid var(--s1);outline-offset:2px;border-radius:3px}
.filters{display:flex;flex-wrap:wrap;gap:6px;margin:0 0 12px}
.filters a{border:1px solid var(--line);border-radius:999px;padding:2px 12px;font-size:13.5px;text-decoration:none;
color:var(--soft);background:var(--card)}.filters a[aria-current]{color:var(--card);background:var(--ink);border-color:var(--ink)}
.jobs td{vertical-align:middle}.jobs .badge{margin-left:0;vertical-align:0}
.jobs td.name a{font-weight:600;text-decoration:none}.jobs td.name a:hover{text-decoration:underline}
.jobs small,.nodes small{display:block;color:var(--mute);font-size:12.5px;white-space:normal}
.jobs td.progress{min-width:170px}.jobs .bar{height:8px;border-radius:4px;margin-bottom:3px}
.jobs td.name,.jobs td.state{width:1px}.jobs td.name small{white-space:nowrap}
.jobs .filters:first-of-type{margin-top:10px}
.slots{display:flex;flex-wrap:wrap;gap:3px}.slots i{width:14px;height:14px;border-radius:3px;border:1.5px solid var(--mute)}
.slots i.used{background:var(--s1);border-color:var(--s1)}.slots i.closed{border-style:dashed}
@media(max-width:720px){.top>div{padding:9px 12px}
.jobs thead{display:none}.jobs table,.jobs tbody{display:block}
.jobs tr{display:grid;grid-template-columns:1fr auto;gap:4px 12px;padding:12px 0;border-bottom:1px solid var(--line)}
.jobs tr:last-child{border-bottom:0}.jobs td.name,.jobs td.state{width:auto}.jobs td{display:block;border:0;padding:0;text-align:left;min-width:0}
.jobs td.progress{grid-column:1/-1;min-width:0}.jobs td.state{text-align:right}
.jobs td.figure{font-size:13px;color:var(--soft);text-align:left}.jobs td.figure small{display:inline}
.jobs td.figure:last-child{text-align:right}
.jobs td.figure[data-label]::before{content:attr(data-label) " ";color:var(--mute)}}
)css";

// Asks for the page again while it is looked at and puts what changed in its place.
constexpr char kRefreshScript[] = R"js(
'use strict';
(() => {
  const state = document.querySelector('.live-state');
  let tag = null, failures = 0, timer = 0, pointer = null;
  const say = (kind, text) => { state.dataset.state = kind; state.textContent = text; };
  const clock = () => new Date().toLocaleTimeString([], {hour12: false});
  document.addEventListener('pointermove', event => {
    if (event.isTrusted) pointer = [event.clientX, event.clientY];
  });

  function show(html) {
    const fresh = new DOMParser().parseFromString(html, 'text/html');
    const before = document.querySelector('main'), after = fresh.querySelector('main');
    if (!after) return;
    // What the reader opened or scrolled stays so.
    const open = [...before.querySelectorAll('details')].map(item => item.open);
    [...after.querySelectorAll('details')].forEach((item, index) => { item.open = !!open[index]; });
    const scrolled = [...before.querySelectorAll('.scroll')].map(item => item.scrollLeft);
    const focused = document.activeElement && document.activeElement.getAttribute('href');
    before.replaceWith(after);
    [...after.querySelectorAll('.scroll')].forEach((item, index) => { item.scrollLeft = scrolled[index] || 0; });
    if (focused) {
      const link = [...after.querySelectorAll('a')].find(item => item.getAttribute('href') === focused);
      if (link) link.focus({preventScroll: true});
    }
    document.title = fresh.title;
    document.body.dataset.every = fresh.body.dataset.every;
    showValues(after);
    const under = pointer && document.elementFromPoint(...pointer);
    const chart = under && under.closest('svg.chart');
    if (chart) chart.dispatchEvent(new PointerEvent('pointermove', {clientX: pointer[0], clientY: pointer[1]}));
  }

  async function refresh() {
    try {
      const answer = await fetch(location.href, {
        headers: tag ? {'If-None-Match': tag} : {}, cache: 'no-store', credentials: 'same-origin',
        signal: AbortSignal.timeout(10000)});
      if (answer.status !== 304) {
        if (!answer.ok && answer.status !== 404) throw new Error(answer.status);
        // A text being marked would lose its mark.
        if (String(getSelection()).length === 0) {
          show(await answer.text());
          tag = answer.headers.get('ETag');
        }
      }
      failures = 0;
      say('live', 'live');
    } catch (error) {
      failures += 1;
      if (failures === 1) state.dataset.since = clock();
      say('waiting', 'no answer since ' + state.dataset.since);
    }
    plan();
  }

  function plan() {
    clearTimeout(timer);
    if (document.hidden) return;
    const every = 1000 * (+document.body.dataset.every || 5);
    timer = setTimeout(refresh, Math.min(30000, every * Math.pow(2, Math.min(failures, 4))));
  }

  document.addEventListener('visibilitychange', () => { if (document.hidden) clearTimeout(timer); else refresh(); });
  say('live', 'live');
  plan();
})();
)js";

constexpr char kIcon[] =
    R"svg(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path d="M2 12h4l4-8h4M2 4h4l4 8h4"
fill="none" stroke="#2a6fd0" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"/></svg>)svg";

}  // namespace

const char kPagePolicy[] =
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

std::string RenderPage(const Page& page) {
  return absl::StrCat(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
      "<meta name=\"color-scheme\" content=\"light dark\"><title>",
      EscapeHtml(page.title),
      " - Switchyard</title>"
      "<link rel=\"icon\" href=\"/assets/icon.svg\"><link rel=\"stylesheet\" "
      "href=\"/assets/page.css\">"
      "<script src=\"/assets/report.js\" defer></script>"
      "<script src=\"/assets/refresh.js\" defer></script></head><body data-every=\"",
      page.every.count(),
      "\"><nav class=\"top\"><div><a class=\"brand\" href=\"/\"><svg width=\"18\" height=\"18\" "
      "viewBox=\"0 0 16 16\" aria-hidden=\"true\"><path d=\"M2 12h4l4-8h4M2 4h4l4 8h4\" "
      "fill=\"none\" stroke=\"currentColor\" stroke-width=\"2\" stroke-linecap=\"round\" "
      "stroke-linejoin=\"round\"/></svg>Switchyard</a><span class=\"trail\">",
      page.trail, "</span><span class=\"live-state\" role=\"status\">as loaded</span></div></nav>",
      page.main, "</body></html>\n");
}

const Asset* FindAsset(const std::string& path) {
  static const auto& assets = *new std::map<std::string, Asset>{
      {"/assets/page.css", {"text/css; charset=utf-8", absl::StrCat(ReportStyle(), kFrameStyle)}},
      {"/assets/report.js", {"text/javascript; charset=utf-8", ReportScript()}},
      {"/assets/refresh.js", {"text/javascript; charset=utf-8", kRefreshScript}},
      {"/assets/icon.svg", {"image/svg+xml", kIcon}}};
  const auto found = assets.find(path);
  return found == assets.end() ? nullptr : &found->second;
}

}  // namespace switchyard::coordinator
