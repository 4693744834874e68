// The report page's style sheet: one place for its colours, light and dark.
#pragma once

#include <string_view>

namespace updraft {

inline constexpr std::string_view kPageStyle = R"css(
:root {
  color-scheme: light dark;
  --paper: #f6f6f3; --card: #ffffff; --ink: #1c2126; --soft: #5d6670; --faint: #8b939c; --rule: #e2e4e1;
  --edge: #12806a; --cloud: #4a5fc1; --both: #c76a0e; --wrong: #b9382f; --band: rgba(199, 106, 14, .10);
  --edge-soft: rgba(18, 128, 106, .14); --cloud-soft: rgba(74, 95, 193, .12);
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --card: #1c2024; --ink: #e8eaec; --soft: #a5adb5; --faint: #78818a; --rule: #2d3338;
    --edge: #3fc3a4; --cloud: #8a9bf0; --both: #f0a04b; --wrong: #ef7f75; --band: rgba(240, 160, 75, .12);
    --edge-soft: rgba(63, 195, 164, .16); --cloud-soft: rgba(138, 155, 240, .15);
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 56px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 18px; margin: 44px 0 14px; letter-spacing: -.005em; }
h3 { font-size: 15px; margin: 0 0 2px; }
p { margin: 0 0 12px; max-width: 74ch; }
.meta { color: var(--soft); font-size: 13px; margin-bottom: 20px; }
.lede { font-size: 17px; line-height: 1.5; }
.lede b.edge, td.edge, .key.edge { color: var(--edge); }
.lede b.cloud, td.cloud, .key.cloud { color: var(--cloud); }
.lede b.both, td.both, .key.both { color: var(--both); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(148px, 1fr)); gap: 12px; margin: 22px 0 8px; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 13px 14px; }
.tile .name { color: var(--soft); font-size: 13px; }
.tile .value { font-size: 27px; font-weight: 640; letter-spacing: -.02em; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile .note { color: var(--faint); font-size: 12.5px; font-variant-numeric: tabular-nums; }
.value.edge { color: var(--edge); } .value.cloud { color: var(--cloud); } .value.both { color: var(--both); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 16px; }
@media (max-width: 520px) { .plots { grid-template-columns: 1fr; } main { padding: 24px 14px; } }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 16px 16px 12px; }
figcaption { color: var(--soft); font-size: 13px; line-height: 1.45; margin-bottom: 6px; }
svg { width: 100%; height: auto; display: block; }
svg text { font-size: 12px; fill: var(--soft); }
svg text.tick { font-size: 11.5px; fill: var(--faint); font-variant-numeric: tabular-nums; }
svg text.label { font-size: 12px; fill: var(--soft); }
svg text.edge { fill: var(--edge); } svg text.cloud { fill: var(--cloud); } svg text.both { fill: var(--both); }
svg text.faint { fill: var(--faint); }
svg text.strong { font-weight: 640; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .axis { stroke: var(--faint); stroke-width: 1; }
svg .line { fill: none; stroke-width: 2.2; stroke-linejoin: round; stroke-linecap: round; }
svg .line.edge { stroke: var(--edge); } svg .line.cloud { stroke: var(--cloud); } svg .line.both { stroke: var(--both); }
svg .line.thin { stroke: var(--faint); stroke-width: 1.3; stroke-dasharray: 4 4; }
svg .line.dots { stroke: var(--faint); stroke-width: 1.4; stroke-dasharray: 1 4; }
svg .area.both { fill: var(--band); stroke: none; }
svg .mark { stroke: var(--faint); stroke-width: 1; stroke-dasharray: 3 3; }
svg .whisker { stroke: var(--edge); stroke-width: 1.4; opacity: .55; }
svg .whisker.both { stroke: var(--both); } svg .whisker.cloud { stroke: var(--cloud); }
svg .dot { stroke: var(--card); stroke-width: 1.5; }
svg .dot.edge { fill: var(--edge); } svg .dot.cloud { fill: var(--cloud); } svg .dot.both { fill: var(--both); }
svg .hit { fill: transparent; } svg .hit:hover { fill: var(--both); }
svg .bar.edge { fill: var(--edge); } svg .bar.deep { fill: var(--faint); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 13.5px; white-space: nowrap; }
th, td { padding: 8px 9px; text-align: right; border-bottom: 1px solid var(--rule); }
th { font-weight: 560; color: var(--soft); font-size: 12.5px; }
th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; font-weight: 640; }
thead tr:first-child th { border-bottom: 0; padding-bottom: 0; }
td .ci { color: var(--faint); font-size: 12px; font-weight: 400; }
.meter { display: inline-block; vertical-align: middle; width: 54px; height: 7px; border-radius: 4px; background: var(--rule);
  margin-left: 8px; overflow: hidden; }
.meter i { display: block; height: 100%; background: var(--cloud); }
.talks { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 16px; }
@media (max-width: 520px) { .talks { grid-template-columns: 1fr; } }
.talk { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 16px; }
.talk .kind { color: var(--faint); font-size: 12.5px; margin-bottom: 10px; }
.say { border-radius: 10px; padding: 7px 11px; margin: 6px 0; overflow-wrap: anywhere; width: fit-content; max-width: 92%; }
.say.user { background: var(--paper); border: 1px solid var(--rule); margin-left: auto; }
.say.assistant { background: transparent; border: 1px solid var(--rule); color: var(--soft); font-size: 13px; }
.say.edge { background: var(--edge-soft); } .say.cloud { background: var(--cloud-soft); }
.say code { font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; white-space: pre-wrap; }
.why { color: var(--soft); font-size: 13px; margin-top: 8px; overflow-wrap: anywhere; }
.why b { font-weight: 600; color: var(--ink); }
.badge { display: inline-block; font-size: 12px; border-radius: 20px; padding: 0 8px; margin-right: 6px; border: 1px solid; }
.badge.edge { color: var(--edge); } .badge.cloud { color: var(--cloud); } .badge.wrong { color: var(--wrong); }
footer { color: var(--soft); font-size: 13px; margin-top: 44px; border-top: 1px solid var(--rule); padding-top: 16px; }
footer dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 0 0 12px; }
footer dt { color: var(--faint); } footer dd { margin: 0; }
)css";

}  // namespace updraft
