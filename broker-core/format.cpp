// SPDX-License-Identifier: Apache-2.0
// What fmt's headers leave to its library, compiled once. Debian has that library for dynamic linking only,
// and compiling it with each source (FMT_HEADER_ONLY) is a quarter of the build.

#include <fmt/format-inl.h>

FMT_BEGIN_NAMESPACE
namespace detail {

// As fmt/format.h declares them.
template FMT_API auto dragonbox::to_decimal(float x) noexcept -> dragonbox::decimal_fp<float>;
template FMT_API auto dragonbox::to_decimal(double x) noexcept -> dragonbox::decimal_fp<double>;
template FMT_API auto locale_ref::get<std::locale>() const -> std::locale;
template FMT_API auto thousands_sep_impl(locale_ref) -> thousands_sep_result<char>;
template FMT_API auto decimal_point_impl(locale_ref) -> char;
template FMT_API void vformat_to(buffer<char>&, string_view, basic_format_args<FMT_BUFFER_CONTEXT(char)>,
                                 locale_ref);

}  // namespace detail
FMT_END_NAMESPACE
