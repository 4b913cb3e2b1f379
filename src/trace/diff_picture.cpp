#include "trace/diff_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <optional>
#include <vector>

#include "plan/plan.h"

namespace llorch {
namespace {

constexpr int kClasses = 8;
constexpr int kNumbersFrom = 46;                                  // pixels: cells as wide as this show their NMSE
constexpr int kLabels = 120, kRow = 24, kTop = 26, kWidth = 880;  // pixels; the page scales them

// Two decades a class, from below 1e-14 to 1e-2 and more.
std::string nmse_class(double nmse) {
  if (!std::isfinite(nmse)) return "nan";
  const int decades = nmse > 0.0 ? static_cast<int>(std::floor(std::log10(nmse))) : -99;
  return fmt::format("n{}", std::clamp((decades + 16) / 2, 0, kClasses - 1));
}

std::string title_of(const StepDiff& step) {
  std::string text = fmt::format("{}\n{} {} [{}, {}]\n", step.step, step.verb, step.dtype, step.rows, step.width);
  if (step.equal) return text + "equal, bit for bit";
  text += fmt::format("NMSE {:.3g}, max abs {:.3g}\n{} of {} elements differ", step.nmse, step.max_abs, step.n_differ,
                      uint64_t{step.rows} * step.width);
  if (step.bound > 0.0)
    text += fmt::format("\n{} its bound of {:.3g}", step.within_bound ? "within" : "outside", step.bound);
  return text;
}

struct Box {
  double x, y, width, height;
};

std::string rect(const Box& box, const std::string& classes) {
  return fmt::format(R"(<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="3"/>)", classes,
                     box.x, box.y, box.width, box.height);
}

std::string label(double x, double y, const char* anchor, std::string_view text) {
  return fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>)", x, y, anchor, escaped(text));
}

// One row of the picture: a kind of step in its layers, or a step that belongs to none.
struct MapRow {
  std::string name;
  std::map<uint32_t, size_t> by_layer;  // index of the step
  std::optional<size_t> alone;
};

std::string kind_of(const std::string& step) { return step.substr(step.find('.', step.find('.') + 1) + 1); }

std::vector<MapRow> rows_of(const DiffReport& report) {
  std::vector<MapRow> rows;
  for (size_t i = 0; i < report.steps.size(); ++i) {
    const std::string& step = report.steps[i].step;
    const auto layer = layer_of(step);
    if (!layer) {
      rows.push_back({step, {}, i});
      continue;
    }
    const std::string kind = kind_of(step);
    const auto is_kind = [&](const MapRow& row) { return !row.alone && row.name == kind; };
    auto row = std::find_if(rows.begin(), rows.end(), is_kind);
    if (row == rows.end()) row = rows.insert(rows.end(), {kind, {}, std::nullopt});
    row->by_layer[*layer] = i;
  }
  return rows;
}

std::vector<uint32_t> layers_of(const std::vector<MapRow>& rows) {
  std::vector<uint32_t> layers;
  for (const MapRow& row : rows)
    for (const auto& [layer, step] : row.by_layer) layers.push_back(layer);
  std::sort(layers.begin(), layers.end());
  layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
  return layers;
}

class HeatMap {
 public:
  explicit HeatMap(const DiffReport& report)
      : report_(report),
        rows_(rows_of(report)),
        layers_(layers_of(rows_)),
        column_(std::clamp<double>((kWidth - kLabels) / std::max(1.0, static_cast<double>(layers_.size())), 8, 94)) {}

  std::string svg() const {
    const double width = kLabels + grid_width() + 2, height = kTop + static_cast<double>(rows_.size()) * kRow + 4;
    std::string out = fmt::format(
        R"(<svg class="map" viewBox="0 0 {:.0f} {:.0f}" width="{:.0f}" role="img" aria-label="steps by layers">)",
        width, height, width);
    // A number where there is room for it.
    const size_t every = column_ >= 24 ? 1 : (column_ >= 12 ? 4 : 8);
    if (!layers_.empty()) out += label(kLabels - 10, 16, "end", "layer");
    for (size_t i = 0; i < layers_.size(); i += every)
      out += label(x_of(i) + column_ / 2, 16, "middle", std::to_string(layers_[i]));
    std::string mark;
    for (size_t r = 0; r < rows_.size(); ++r) out += row(r, mark);
    return out + mark + "</svg>";
  }

 private:
  double grid_width() const { return column_ * static_cast<double>(std::max<size_t>(1, layers_.size())); }
  double x_of(size_t column) const { return kLabels + column_ * static_cast<double>(column); }

  std::string row(size_t r, std::string& mark) const {
    const MapRow& row = rows_[r];
    const double y = kTop + static_cast<double>(r) * kRow;
    std::string out = label(kLabels - 10, y + 16, "end", row.name);
    if (row.alone) return out + cell(*row.alone, {kLabels + 1.0, y + 1, grid_width() - 2, kRow - 2}, mark);
    for (size_t i = 0; i < layers_.size(); ++i) {
      const Box box{x_of(i) + 1, y + 1, column_ - 2, kRow - 2};
      const auto it = row.by_layer.find(layers_[i]);
      out += it == row.by_layer.end() ? rect(box, "absent") : cell(it->second, box, mark);
    }
    return out;
  }

  std::string cell(size_t index, const Box& box, std::string& mark) const {
    const StepDiff& step = report_.steps[index];
    // Drawn last, so that no neighbour covers it.
    if (static_cast<int>(index) == report_.first)
      mark = rect({box.x - 2, box.y - 2, box.width + 4, box.height + 4}, "first");
    const std::string heat = heat_class(step);
    std::string number;
    if (!step.equal && column_ >= kNumbersFrom && std::isfinite(step.nmse))
      number = fmt::format(R"(<text class="number {}" x="{:.1f}" y="{:.1f}" text-anchor="middle">{:.0e}</text>)", heat,
                           box.x + box.width / 2, box.y + 15, step.nmse);
    return fmt::format(R"(<a href="#step-{}"><title>{}</title>{}{}</a>)", index, escaped(title_of(step)),
                       rect(box, "cell " + heat), number);
  }

  const DiffReport& report_;
  std::vector<MapRow> rows_;
  std::vector<uint32_t> layers_;
  double column_;  // width
};

std::string swatch(const std::string& classes, std::string_view text) {
  return fmt::format(
      R"(<span class="key"><svg width="16" height="16"><rect class="{}" x="1" y="1" width="14" height="14" rx="3"/></svg>{}</span>)",
      classes, escaped(text));
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string heat_class(const StepDiff& step) {
  if (step.equal) return "equal";
  if (step.within_bound) return "within";
  return nmse_class(step.nmse);
}

std::string legend_html(const DiffReport& report) {
  std::string out = R"(<div class="legend">)" + swatch("equal", "equal, bit for bit");
  if (!report.exact) out += swatch("within", "within its bound");
  out += R"(<span class="key scale">NMSE)";
  for (int i = 0; i < kClasses; ++i) {
    const std::string range = i == 0              ? "below 1e-14"
                              : i == kClasses - 1 ? "1e-2 and more"
                                                  : fmt::format("1e{} to 1e{}", 2 * i - 16, 2 * i - 14);
    out += fmt::format(
        R"(<svg width="24" height="16"><title>{}</title><rect class="n{}" y="1" width="24" height="14"/></svg>)", range,
        i);
  }
  out += "1e-14 to 1e-2</span>" + swatch("nan", "NaN or infinity on one side");
  if (!report.same()) out += swatch("first", "the first that differs");
  return out + "</div>";
}

std::string heat_map_svg(const DiffReport& report) { return HeatMap(report).svg(); }

std::string positions_svg(const StepDiff& step) {
  // More positions than fit are drawn in groups, each as its worst.
  const size_t n = step.nmse_by_row.size(), most = 190;
  const size_t group = std::max<size_t>(1, (n + most - 1) / most), n_cells = (n + group - 1) / group;
  const double column = std::clamp<double>(kWidth / std::max(1.0, static_cast<double>(n_cells)), 4, 40);
  const double width = column * static_cast<double>(n_cells) + 2;
  std::string out = fmt::format(
      R"(<svg class="map" viewBox="0 0 {0:.0f} 46" width="{0:.0f}" role="img" aria-label="NMSE by position">)",
      std::max(width, 60.0));
  const size_t label_every = std::max<size_t>(1, static_cast<size_t>(std::ceil(30 / column)));
  for (size_t i = 0; i < n_cells; ++i) {
    const auto begin = step.nmse_by_row.begin() + static_cast<ptrdiff_t>(i * group);
    const auto end = step.nmse_by_row.begin() + static_cast<ptrdiff_t>(std::min(n, (i + 1) * group));
    const double worst = *std::max_element(begin, end);
    const size_t first = step.first_position + i * group, last = first + static_cast<size_t>(end - begin) - 1;
    const std::string where =
        first == last ? fmt::format("position {}", first) : fmt::format("positions {} to {}", first, last);
    const double x = 1 + column * static_cast<double>(i);
    const std::string heat = worst == 0.0 ? "equal" : (worst <= step.bound ? "within" : nmse_class(worst));
    out += fmt::format("<g><title>{}: NMSE {:.3g}</title>{}</g>", where, worst,
                       rect({x + 0.5, 1, column - 1, 24}, "cell " + heat));
    if (i % label_every == 0) out += label(x + column / 2, 41, "middle", std::to_string(first));
  }
  return out + "</svg>";
}

}  // namespace llorch
