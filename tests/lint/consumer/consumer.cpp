// SPDX-License-Identifier: Apache-2.0
// The same in C++, by exceptions.
#include <iostream>
#include <postern/libpostern.hpp>
#include <string>

int main(int argc, char** argv) try {
    if (argc != 2) return 2;
    libpostern::Context context;
    const libpostern::Profile profile = libpostern::Profile::load(argv[1]);
    libpostern::Policy policy;
    policy.window("registers", 0, 0, 4096, LIBPOSTERN_READ | LIBPOSTERN_MMAP).ioctl("VFIO_DEVICE_GET_INFO");
    bool is_refused = false;
    try {
        (void)context.open_device("ffff:ff:1f.7");
    } catch (const libpostern::Error& error) {
        is_refused =
            error.code().value() > 0 && std::string(error.what()).find("ffff:ff:1f.7") != std::string::npos;
    }
    context.close();
    return is_refused && profile.slices() == 1 ? 0 : 1;
} catch (const libpostern::Error& error) {
    std::cerr << "consumer: " << error.what() << '\n';
    return 1;
}
