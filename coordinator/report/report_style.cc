#include "coordinator/report/report_style.h"

namespace switchyard::coordinator {

const char* ReportStyle() {
  return R"css(
:root{color-scheme:light dark;--page:#f6f6f3;--card:#fff;--ink:#14140f;--soft:#55554e;--mute:#7d7d75;--line:#e3e3dd;
--s1:#2a6fd0;--s2:#d9622b;--s3:#1a8f6a;--good:#1a7f37;--bad:#c62a2f;--warn:#9a6700;
--m0:#2a6fd0;--m1:#1a8f6a;--m2:#d9a021;--m3:#7b4fc9;--m4:#d9622b;--m5:#3aa0b5;--m6:#c0447d;--m7:#8a8a82;
--h0:#1d5bb5;--h1:#4682d0;--h2:#7ea9e0;--h3:#b6cfee;--h4:#e6e6e0;--h5:#f3c4b0;--h6:#e8977a;--h7:#d86447;--h8:#b93324}
@media(prefers-color-scheme:dark){:root{--page:#121211;--card:#1b1b19;--ink:#f3f3ee;--soft:#c0c0b8;--mute:#92928a;
--line:#33332f;--s1:#5b9bf0;--s2:#f08450;--s3:#3fbf95;--good:#4cc26a;--bad:#f2686c;--warn:#e0b040;
--m0:#4f8fe6;--m1:#35b187;--m2:#d7a937;--m3:#a17be6;--m4:#ea7d48;--m5:#52b7cb;--m6:#dd6c9d;--m7:#85857e;
--h0:#6aa7f5;--h1:#4c86d3;--h2:#37659f;--h3:#2b4669;--h4:#383834;--h5:#6b4034;--h6:#9c503a;--h7:#cf6344;--h8:#f58460}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1160px;margin:0 auto;padding:28px 20px 48px}
h1{font-size:26px;line-height:1.25;margin:0;overflow-wrap:anywhere}h2{font-size:16px;margin:0 0 2px}
header p{margin:4px 0 0;color:var(--soft);overflow-wrap:anywhere}
.badge{display:inline-block;font-size:13px;font-weight:600;border:1.5px solid;border-radius:999px;padding:1px 11px;
margin-left:8px;white-space:nowrap;vertical-align:4px;color:var(--mute)}.badge.good{color:var(--good)}.badge.bad{color:var(--bad)}
.badge.live{color:var(--s1)}.badge.warn{color:var(--warn)}
.reason{margin:16px 0 0;padding:12px 16px;border-left:4px solid var(--mute);background:var(--card);border-radius:0 8px 8px 0}
.reason.bad{border-color:var(--bad)}.reason.warn{border-color:var(--warn)}
.reason pre{margin:8px 0 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin:20px 0}
.tile,.card{background:var(--card);border:1px solid var(--line);border-radius:10px}
.tile{padding:12px 16px}.tile b{display:block;font-size:22px;line-height:1.3;font-weight:650}
.tile span{color:var(--soft);font-size:13px}.tile small{display:block;color:var(--mute);font-size:12.5px}
.grid2{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:16px}
.card{padding:16px 18px;min-width:0}.grid2+.card,.card+.card,.card+.grid2,.grid2+.grid2{margin-top:16px}
.grid2>.card{margin-top:0}
.note{margin:0 0 8px;color:var(--mute);font-size:13px}.empty{color:var(--mute);margin:18px 0}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px;color:var(--soft);margin:4px 0 6px}
.legend span{display:inline-flex;align-items:center;gap:6px}.legend i{width:18px;height:0;border-top:3px solid}
.legend i.dash{border-top:2px dashed var(--mute)}.legend i.cell,.legend i.box{width:14px;height:14px;border:0;border-radius:3px}
i.s1{color:var(--s1)}i.s2{color:var(--s2)}i.s3{color:var(--s3)}.legend i.cell+i.cell{margin-left:-4px}
svg{display:block}svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
.chart{width:100%;height:auto;overflow:visible}.plot{position:relative}
.tick{fill:var(--mute)}.value{fill:var(--ink)}.grid{stroke:var(--line)}.axis{stroke:var(--mute)}
.reference{stroke:var(--mute);stroke-width:1.6;stroke-dasharray:5 4}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}.line.faint{opacity:.3;stroke-width:1.2}
.line.s1{stroke:var(--s1)}.line.s2{stroke:var(--s2)}.line.s3{stroke:var(--s3)}
.dot{stroke:var(--card);stroke-width:1.5}.dot.s1{fill:var(--s1)}.dot.s2{fill:var(--s2)}.dot.s3{fill:var(--s3)}
.cross{stroke:var(--soft);stroke-width:1;pointer-events:none}
.tip{position:absolute;pointer-events:none;background:var(--ink);color:var(--page);font-size:12.5px;line-height:1.4;
padding:4px 9px;border-radius:6px;white-space:nowrap;z-index:2}
.bar{display:block;width:100%;height:26px;border-radius:6px;background:var(--line)}
.bar rect+rect{stroke:var(--card);stroke-width:.8;vector-effect:non-scaling-stroke}
.barrow{margin:10px 0}.barrow p{display:flex;justify-content:space-between;gap:12px;margin:0 0 3px;font-size:13.5px}
.barrow p span:last-child{color:var(--soft);white-space:nowrap}
.thin .bar{height:12px}.thin .barrow{margin:7px 0}
.swatch{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:8px}
.m0{background:var(--m0)}.m1{background:var(--m1)}.m2{background:var(--m2)}.m3{background:var(--m3)}
.m4{background:var(--m4)}.m5{background:var(--m5)}.m6{background:var(--m6)}.m7{background:var(--m7)}
rect.m0{fill:var(--m0)}rect.m1{fill:var(--m1)}rect.m2{fill:var(--m2)}rect.m3{fill:var(--m3)}
rect.m4{fill:var(--m4)}rect.m5{fill:var(--m5)}rect.m6{fill:var(--m6)}rect.m7{fill:var(--m7)}
rect.measured{fill:var(--soft)}rect.good{fill:var(--good)}rect.bad{fill:var(--bad)}rect.idle{fill:var(--mute)}
rect.h0{fill:var(--h0)}rect.h1{fill:var(--h1)}rect.h2{fill:var(--h2)}rect.h3{fill:var(--h3)}rect.h4{fill:var(--h4)}
rect.h5{fill:var(--h5)}rect.h6{fill:var(--h6)}rect.h7{fill:var(--h7)}rect.h8{fill:var(--h8)}
rect.hd{fill:none;stroke:var(--mute);stroke-dasharray:2 2}
i.h0{background:var(--h0)}i.h1{background:var(--h1)}i.h2{background:var(--h2)}i.h3{background:var(--h3)}
i.h4{background:var(--h4)}i.h5{background:var(--h5)}i.h6{background:var(--h6)}i.h7{background:var(--h7)}
i.h8{background:var(--h8)}.legend i.hd{border:1.5px dashed var(--mute)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13.5px}
th{text-align:left;color:var(--mute);font-weight:600;white-space:nowrap}
th,td{padding:5px 14px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td{border-bottom:0}.n{text-align:right;font-variant-numeric:tabular-nums}td.n{white-space:nowrap}
td:first-child,td .type{white-space:nowrap;font-variant-numeric:tabular-nums}
td{overflow-wrap:anywhere;min-width:70px}.sev-error{color:var(--bad);font-weight:600}.sev-warning{color:var(--warn);font-weight:600}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:6px 0;font-size:13.5px}
dt{color:var(--mute)}dd{margin:0;overflow-wrap:anywhere}
pre{font:12.5px/1.5 ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;overflow-x:auto;margin:6px 0;
white-space:pre-wrap;overflow-wrap:anywhere}
summary{cursor:pointer;color:var(--soft);font-size:13.5px;margin-top:8px}footer{color:var(--mute);font-size:13px;margin-top:22px}
@media(max-width:820px){.grid2{grid-template-columns:minmax(0,1fr)}}
@media(max-width:560px){main{padding:18px 12px 32px}.card{padding:14px 12px}.chart text{font-size:16px}h1{font-size:22px}
.tiles{grid-template-columns:repeat(2,minmax(0,1fr))}.tile b{font-size:18px}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:6px}}
@media(max-width:560px){.events thead{display:none}.events table,.events tbody{display:block}
.events tr{display:grid;grid-template-columns:auto auto 1fr;gap:0 10px;padding:7px 0;border-bottom:1px solid var(--line)}
.events tr:last-child{border-bottom:0}.events td{display:block;border:0;padding:0;min-width:0}
.events td:nth-child(-n+2){color:var(--mute)}.events td:nth-child(2)::before{content:"attempt "}
.events td:nth-child(3){order:-1;grid-column:1/-1}.events td:last-child{grid-column:1/-1}}
@media print{body{background:#fff}.card,.tile{break-inside:avoid}}
)css";
}

// Reading the page needs none of this: it only shows the values under the pointer.
const char* ReportScript() {
  return R"js(
function showValues(page) {
for (const svg of page.querySelectorAll('svg.chart[data-hover]')) {
  const points = svg.dataset.hover.split(';').filter(Boolean).map(entry => {
    const [x, y, name, step, value] = entry.split('|');
    return {x: +x, y: +y, name, step, value};
  });
  if (!points.length) continue;
  const tip = document.createElement('div');
  tip.className = 'tip';
  const cross = document.createElementNS('http://www.w3.org/2000/svg', 'line');
  cross.setAttribute('class', 'cross');
  cross.setAttribute('y1', 12);
  cross.setAttribute('y2', 200);
  const names = [...new Set(points.map(point => point.name))];
  svg.addEventListener('pointermove', event => {
    const box = svg.getBoundingClientRect();
    const scale = 520 / box.width;
    const at = (event.clientX - box.left) * scale;
    const near = names.map(name => points.filter(point => point.name === name)
      .reduce((a, b) => Math.abs(b.x - at) < Math.abs(a.x - at) ? b : a));
    const main = near.reduce((a, b) => Math.abs(b.x - at) < Math.abs(a.x - at) ? b : a);
    cross.setAttribute('x1', main.x);
    cross.setAttribute('x2', main.x);
    svg.append(cross);
    tip.textContent = 'step ' + main.step + ': ' +
      near.filter(point => point.step === main.step).map(point => point.name + ' ' + point.value).join(', ');
    svg.parentNode.append(tip);
    const left = Math.min(main.x / scale + 10, box.width - tip.offsetWidth - 4);
    tip.style.left = Math.max(0, left) + 'px';
    tip.style.top = '6px';
  });
  svg.addEventListener('pointerleave', () => { cross.remove(); tip.remove(); });
}
}
showValues(document);
)js";
}

}  // namespace switchyard::coordinator
