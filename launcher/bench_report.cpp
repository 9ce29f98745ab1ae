// SPDX-License-Identifier: Apache-2.0
#include "launcher/bench_report.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace postern {
namespace {

struct Figures {
    double median = 0;
    double lowest = 0;
    double highest = 0;
    double ratio = 0;  ///< to the first side's median
};

Figures figures_of(const BenchResult& result, const BenchSide& side) {
    Figures figures;
    figures.median = median(side.values);
    const auto [low, high] = std::minmax_element(side.values.begin(), side.values.end());
    if (low != side.values.end()) {
        figures.lowest = *low;
        figures.highest = *high;
    }
    const double base = median(result.sides.front().values);
    figures.ratio = base > 0 ? figures.median / base : 0;
    return figures;
}

}  // namespace

double median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    const size_t middle = values.size() / 2;
    return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::string bench_table(const BenchResult& result) {
    std::string text = fmt::format("{}\n{:<44} {:>10} {:>10} {:>10} {:>8}\n", result.title, "", "median",
                                   "lowest", "highest", "ratio");
    for (const BenchSide& side : result.sides) {
        const Figures figures = figures_of(result, side);
        text += fmt::format("{:<44} {:>10.{}f} {:>10.{}f} {:>10.{}f} {:>8.3f}\n", side.label, figures.median,
                            result.decimals, figures.lowest, result.decimals, figures.highest,
                            result.decimals, figures.ratio);
    }
    text += fmt::format("{}, {} rounds each, alternated; ratio is to the first line\n", result.unit,
                        result.sides.front().values.size());
    return text;
}

Json bench_json(const BenchResult& result) {
    Json sides = Json::array();
    for (const BenchSide& side : result.sides) {
        const Figures figures = figures_of(result, side);
        sides.push_back({{"name", side.name},
                         {"label", side.label},
                         {"median", figures.median},
                         {"lowest", figures.lowest},
                         {"highest", figures.highest},
                         {"ratio", figures.ratio},
                         {"rounds", side.values}});
    }
    return {{"postern", 1}, {"title", result.title}, {"unit", result.unit}, {"sides", sides}};
}

std::string bench_svg(const BenchResult& result) {
    constexpr int kLeft = 300;
    constexpr int kWidth = 460;
    constexpr int kRow = 46;
    double top = 0;
    for (const BenchSide& side : result.sides) top = std::max(top, figures_of(result, side).highest);
    const auto x_of = [&](double value) { return kLeft + (top > 0 ? value / top * kWidth : 0); };
    const int height = 80 + kRow * static_cast<int>(result.sides.size());
    std::string svg = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
        "font-family=\"sans-serif\" "
        "font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        "<text x=\"16\" y=\"28\" font-size=\"16\">{2}</text>\n",
        kLeft + kWidth + 110, height, result.title);
    int y = 50;
    for (const BenchSide& side : result.sides) {
        const Figures figures = figures_of(result, side);
        const int middle = y + 14;
        svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n", kLeft - 12, middle + 5,
                           side.label);
        svg += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"28\" fill=\"#4878a8\"/>\n",
                           kLeft, y, x_of(figures.median) - kLeft);
        svg += fmt::format(
            "<path d=\"M{0:.1f} {2}H{1:.1f}M{0:.1f} {3}V{4}M{1:.1f} {3}V{4}\" stroke=\"#222\" "
            "fill=\"none\"/>\n",
            x_of(figures.lowest), x_of(figures.highest), middle, middle - 6, middle + 6);
        svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\">{:.{}f} ({:.3f})</text>\n", x_of(figures.highest) + 8,
                           middle + 5, figures.median, result.decimals, figures.ratio);
        y += kRow;
    }
    svg += fmt::format(
        "<text x=\"{}\" y=\"{}\" fill=\"#555\">{}; bars are medians, whiskers lowest and highest "
        "round</text>\n</svg>\n",
        16, height - 12, result.unit);
    return svg;
}

Status write_bench_report(const std::string& folder, const Json& document,
                          const std::vector<BenchResult>& results) {
    std::error_code code;
    std::filesystem::create_directories(folder, code);
    const auto write = [&](const std::string& name, const std::string& text) -> Status {
        std::ofstream file(folder + "/" + name);
        file << text;
        file.close();
        if (!file) return fail("cannot write {} to {}", name, folder);
        return {};
    };
    POSTERN_TRY(write("bench.json", document.dump(2) + "\n"));
    for (const BenchResult& result : results) POSTERN_TRY(write(result.name + ".svg", bench_svg(result)));
    return {};
}

}  // namespace postern
