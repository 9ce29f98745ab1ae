// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "launcher/job.h"

namespace postern {

/// `text` for the content of an XML 1.0 element or attribute. XML has no way to write most control
/// characters: each becomes its picture (ESC is U+241B), and what is not UTF-8 becomes U+FFFD. Pure.
[[nodiscard]] std::string xml_text(std::string_view text);

/// What became of the jobs, as JUnit's XML in the form that Jenkins' xunit plugin describes (junit-10.xsd):
/// one suite, one test case a job. A status other than 0 and a limit in time are failures, a signal and a job
/// that could not be started are errors, a job that did not run is skipped. Pure.
[[nodiscard]] std::string junit_report(const PoolResult& pool, std::string_view hostname);

}  // namespace postern
