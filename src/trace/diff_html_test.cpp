#include "trace/diff_html.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "trace/diff.h"
#include "trace/diff_picture.h"

namespace llorch {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

StepDiff step(const std::string& name, const std::vector<float>& a, const std::vector<float>& b, double bound = 0.0) {
  std::vector<uint32_t> positions(a.size());
  for (uint32_t i = 0; i < positions.size(); ++i) positions[i] = i;
  return diff_step({{name, "linear", "f16", "its <line>"}, positions, 1, a, b, false, bound});
}

DiffReport report_of(std::vector<StepDiff> steps) {
  DiffReport report;
  report.name_a = "<script>alert(1)</script>";
  report.name_b = "b";
  report.a.model = report.b.model = "a & b";
  report.a.tokens = {1, 2};
  report.a.n_prompt = 2;
  report.exact = true;
  report.steps = std::move(steps);
  report.first = first_outside(report.steps);
  return report;
}

size_t count(const std::string& text, const std::string& what) {
  size_t n = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + what.size())) ++n;
  return n;
}

DiffReport two_layers() {
  return report_of({step("embed", {1, 2}, {1, 2}), step("layers.0.attn", {1, 2}, {1, 2}),
                    step("layers.0.act", {1, 2}, {1, 2}), step("layers.1.attn", {1, 2.5f}, {1, 2}),
                    step("logits", {1, std::numeric_limits<float>::quiet_NaN()}, {1, 2})});
}

TEST(DiffHtml, TheMapHasACellForEachStepAndMarksTheFirst) {
  const std::string svg = heat_map_svg(two_layers());
  EXPECT_EQ(count(svg, "<a href="), 5u);
  EXPECT_EQ(count(svg, "class=\"cell equal\""), 3u);
  EXPECT_EQ(count(svg, "class=\"cell n7\""), 1u);
  EXPECT_EQ(count(svg, "class=\"cell nan\""), 1u);
  EXPECT_EQ(count(svg, "class=\"absent\""), 1u) << "layers.1.act";
  EXPECT_EQ(count(svg, "class=\"first\""), 1u);
  EXPECT_THAT(svg,
              HasSubstr("<title>layers.1.attn\nlinear f16 [2, 1]\nNMSE 0.05, max abs 0.5\n1 of 2 elements differ"));
  EXPECT_THAT(heat_map_svg(report_of({step("embed", {1}, {1})})), Not(HasSubstr("class=\"first\"")));
}

TEST(DiffHtml, ColoursFollowTheDecadesOfTheNmse) {
  EXPECT_EQ(heat_class(step("x", {1}, {1})), "equal");
  EXPECT_EQ(heat_class(step("x", {1.0001f}, {1})), "n4");
  EXPECT_EQ(heat_class(step("x", {1.0001f}, {1}, 1e-7)), "within");
  EXPECT_EQ(heat_class(step("x", {std::nextafter(1.0f, 2.0f)}, {1})), "n1");
  EXPECT_EQ(heat_class(step("x", {-0.0f}, {0.0f})), "n0");
  EXPECT_EQ(heat_class(step("x", {100}, {1})), "n7");
}

TEST(DiffHtml, PositionsThatDoNotFitAreDrawnInGroups) {
  std::vector<float> a(1000, 1.0f), b(1000, 1.0f);
  a[997] = 2.0f;
  const std::string svg = positions_svg(step("x", a, b));
  EXPECT_EQ(count(svg, "<title>"), 167u);
  EXPECT_EQ(count(svg, "class=\"cell n7\""), 1u);
  EXPECT_THAT(svg, HasSubstr("<title>positions 996 to 999: NMSE 1</title>"));
}

TEST(DiffHtml, ThePageIsSelfContainedAndEscapesWhatIsNotItsOwn) {
  const std::string html = to_html(two_layers());
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;alert(1)"));
  EXPECT_THAT(html, HasSubstr("a &amp; b, 2 tokens"));
  EXPECT_THAT(html, HasSubstr("its &lt;line&gt;"));
  for (const char* outside : {"<script", "http:", "https:", "<link", "<img", "@import", "url("})
    EXPECT_THAT(html, Not(HasSubstr(outside)));
  EXPECT_EQ(count(html, "<tr id=\"step-"), 5u);
  EXPECT_THAT(html, HasSubstr("2 of 5 steps differ"));
  EXPECT_THAT(to_html(report_of({step("embed", {1}, {1})})), HasSubstr("<strong>Equal</strong>"));
}

}  // namespace
}  // namespace llorch
