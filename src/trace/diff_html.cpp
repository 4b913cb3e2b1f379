#include "trace/diff_html.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "trace/diff_picture.h"
#include "trace/diff_text.h"

namespace llorch {
namespace {

constexpr const char* kStyle = R"css(
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1c2430; --soft: #647084; --line: #e1e5eb;
  --good: #1a7f4b; --bad: #c22f2f; --equal: #d5dee8; --within: #8fcfc0; --absent: #c9d0d9; --mark: #111820;
  --n0: #fdf0c4; --n1: #fbdf95; --n2: #f9c667; --n3: #f5a54a; --n4: #ec7f3d; --n5: #d95a36; --n6: #b93634; --n7: #8a1c37;
  --nan: #7a3fc0; }
@media (prefers-color-scheme: dark) { :root { --page: #12161c; --card: #1a2029; --ink: #e4e9f0; --soft: #93a0b3;
  --line: #2c3542; --good: #58c98c; --bad: #ff7d70; --equal: #2e3b4a; --within: #2f7a6d; --absent: #39434f; --mark: #ffffff;
  --n0: #4a3a1c; --n1: #6b4a1b; --n2: #8e5a1c; --n3: #b56a1f; --n4: #d97d27; --n5: #f09a3e; --n6: #f9bd66; --n7: #ffe3a3;
  --nan: #b98aff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 32px 24px 64px; max-width: 1080px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0 0 4px; font-size: 24px; letter-spacing: -0.01em; }
h2 { margin: 0 0 4px; font-size: 16px; }
p { margin: 0 0 12px; } p:last-child { margin-bottom: 0; }
.soft { color: var(--soft); }
code, td, .bits { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 12.5px; }
section { margin-top: 20px; padding: 20px 22px; background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.verdict { border-left: 6px solid var(--good); }
.verdict.differs { border-left-color: var(--bad); }
.verdict strong { font-size: 18px; color: var(--good); }
.verdict.differs strong { color: var(--bad); }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 20px; padding: 0; background: none; border: 0; }
.sides > div { padding: 16px 22px; background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
dl { display: grid; grid-template-columns: auto 1fr; gap: 2px 14px; margin: 8px 0 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 22px; margin: 8px 0 14px; color: var(--soft); font-size: 13px; }
.key { display: inline-flex; align-items: center; gap: 7px; } .scale { gap: 0; }
.scale svg:first-of-type { margin-left: 7px; } .scale svg:last-of-type { margin-right: 7px; }
.map { display: block; max-width: 100%; height: auto; }
.map text { fill: var(--soft); font-size: 12px; }
.map text.number { fill: var(--ink); font-size: 11px; pointer-events: none; }
.map text.n5, .map text.n6, .map text.n7, .map text.nan { fill: var(--card); }
.cell { cursor: pointer; } a:hover .cell, g:hover .cell { stroke: var(--ink); stroke-width: 1.5; }
rect.equal { fill: var(--equal); } rect.within { fill: var(--within); } rect.nan { fill: var(--nan); }
rect.n0 { fill: var(--n0); } rect.n1 { fill: var(--n1); } rect.n2 { fill: var(--n2); } rect.n3 { fill: var(--n3); }
rect.n4 { fill: var(--n4); } rect.n5 { fill: var(--n5); } rect.n6 { fill: var(--n6); } rect.n7 { fill: var(--n7); }
rect.absent { fill: none; stroke: var(--absent); stroke-dasharray: 2 3; }
rect.first { fill: none; stroke: var(--mark); stroke-width: 2.5; pointer-events: none; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; white-space: nowrap; }
th { padding: 6px 10px; text-align: left; font-size: 12.5px; font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--line); }
td { padding: 4px 10px; border-bottom: 1px solid var(--line); }
th.r, td.r { text-align: right; }
td.chip { padding: 0 0 0 4px; width: 18px; }
td.chip svg { display: block; }
tr.is-equal td { color: var(--soft); }
tr.is-first td { font-weight: 700; border-top: 2px solid var(--mark); border-bottom: 2px solid var(--mark); }
tr:target td { background: var(--equal); }
@media (max-width: 720px) { .sides { grid-template-columns: 1fr; } }
)css";

std::string field(const char* name, const std::string& value) {
  if (value.empty()) return {};
  return fmt::format("<dt>{}</dt><dd>{}</dd>", name, escaped(value));
}

std::string side_html(const char* letter, const char* role, const std::string& name, const TraceInfo& info) {
  return fmt::format(R"(<div><h2>{} <span class="soft">{}</span></h2><code>{}</code><dl>)", letter, role,
                     escaped(name)) +
         field("backend", info.backend) + field("device", info.device) + field("numerics", info.numerics) +
         field("build", info.build) + field("model", info.model) + field("model hash", info.model_hash) +
         field("plan hash", info.plan_hash) + "</dl></div>";
}

std::string tokens_html(const TraceInfo& info) {
  constexpr size_t kShown = 64;
  const std::span tokens = std::span(info.tokens).first(std::min(kShown, info.tokens.size()));
  return fmt::format("<code>{}{}</code>", fmt::join(tokens, " "), info.tokens.size() > kShown ? " ..." : "");
}

std::string verdict_html(const DiffReport& report) {
  if (report.same())
    return fmt::format(R"(<section class="verdict"><strong>{}</strong><p class="soft">{}</p></section>)",
                       report.exact ? "Equal" : "Within bounds", escaped(verdict_text(report)));
  const StepDiff& first = report.steps[static_cast<size_t>(report.first)];
  return fmt::format(
      R"(<section class="verdict differs"><strong>{}</strong> <span class="soft">is the first step {}</span>)"
      R"(<p class="bits">{}</p><p class="bits soft">{}</p><h2>Its rows</h2>)"
      R"(<p class="soft">NMSE by position.</p>{}</section>)",
      escaped(first.step), report.exact ? "that differs" : "outside its bound", escaped(verdict_text(report)),
      escaped(first.text), positions_svg(first));
}

std::string address_text(const std::optional<ElementAddress>& at) {
  return at ? fmt::format("{}:{}", at->position, at->element) : "";
}

std::string table_row(const DiffReport& report, size_t index) {
  const StepDiff& step = report.steps[index];
  const auto number = [&](const std::string& text) { return fmt::format(R"(<td class="r">{}</td>)", text); };
  const auto measured = [&](const std::string& text) { return number(step.equal ? "" : text); };
  const auto& at = step.bound > 0.0 ? step.largest_difference : step.first_difference;
  std::string row = fmt::format(
      R"(<tr id="step-{}" class="{}{}"><td class="chip"><svg width="12" height="12"><rect class="{}" width="12" height="12" rx="3"/></svg></td>)",
      index, step.equal ? "is-equal" : "", static_cast<int>(index) == report.first ? " is-first" : "",
      heat_class(step));
  row += fmt::format(R"(<td title="{}">{}</td><td>{}</td><td>{}</td>)", escaped(step.text), escaped(step.step),
                     escaped(step.verb), escaped(step.dtype));
  row += number(fmt::format("{} x {}", step.rows, step.width));
  row += step.equal ? number("equal") : number(fmt::format("{:.3g}", step.max_abs));
  row += measured(fmt::format("{:.3g}", step.nmse)) + measured(fmt::format("{:.6f}", step.cosine)) +
         measured(std::to_string(step.ulp_median));
  if (!report.exact) row += number(fmt::format("{:.3g}", step.bound));
  row += number(address_text(at)) + number(address_text(step.first_nan));
  row += number(step.argmax_agree ? fmt::format("{}/{}", *step.argmax_agree, step.rows) : "");
  return row + "</tr>\n";
}

std::string table_html(const DiffReport& report) {
  std::string html =
      R"(<div class="table"><table><thead><tr><th></th><th>step</th><th>verb</th><th>weights</th><th class="r">rows x width</th><th class="r">max abs</th><th class="r">NMSE</th><th class="r">cosine</th><th class="r">ULP</th>)";
  html += report.exact ? R"(<th class="r">first at</th>)" : R"(<th class="r">bound</th><th class="r">largest at</th>)";
  html += R"(<th class="r">NaN at</th><th class="r">argmax</th></tr></thead><tbody>)";
  for (size_t i = 0; i < report.steps.size(); ++i) html += table_row(report, i);
  return html + "</tbody></table></div>";
}

std::string only_html(const char* side, const std::vector<std::string>& steps) {
  if (steps.empty()) return {};
  return fmt::format(R"(<p class="soft">Only in {}: {}</p>)", side, escaped(fmt::format("{}", fmt::join(steps, ", "))));
}

}  // namespace

std::string to_html(const DiffReport& report) {
  const TraceInfo& run = report.a.model.empty() ? report.b : report.a;
  std::string html = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">";
  html += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">";
  html += fmt::format("<title>llorch diff: {}</title><style>{}</style></head><body>\n",
                      report.same() ? "equal" : "differs", kStyle);
  html += fmt::format("<h1>llorch diff</h1><p class=\"soft\">{}{}</p>\n", escaped(run_text(run)),
                      report.local ? "; each step of A was fed the inputs of B" : "");
  html += verdict_html(report);
  html += R"(<section><h2>Steps by layers</h2><p class="soft">In plan order from top to bottom, layer after layer. )";
  html += "Hover a cell for its numbers, click it for its line.</p>";
  html += legend_html(report) + heat_map_svg(report) + "</section>\n<section class=\"sides\">";
  html += side_html("A", "is looked at", report.name_a, report.a);
  html += side_html("B", "is what it is held against", report.name_b, report.b) + "</section>\n";
  html += "<section><h2>Tokens</h2>" + tokens_html(run) + "</section>\n<section><h2>All steps</h2>";
  html +=
      R"(<p class="soft">Addresses are position:element. NMSE = &Sigma;(a - b)&sup2; / &Sigma;b&sup2;; ULP is the )";
  html += "median of the representable floats between elements that differ.</p>";
  html += table_html(report) + only_html("A", report.only_a) + only_html("B", report.only_b) + "</section>\n";
  return html + "</body></html>\n";
}

}  // namespace llorch
