// SPDX-License-Identifier: Apache-2.0
/* What somebody else's driver looks like to the build: no device, but every part of the API that needs none.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <postern/libpostern.h>

static int fail(const char* what) {
    fprintf(stderr, "consumer: %s: %s\n", what, libpostern_error());
    return 1;
}

int main(int argc, char** argv) {
    struct libpostern_context* context = NULL;
    struct libpostern_profile* profile = NULL;
    struct libpostern_policy* policy = NULL;
    struct libpostern_device* device = NULL;
    int major = 0;
    int minor = 0;
    int patch = 0;
    if (argc != 2) return 2;
    if (sscanf(libpostern_version(), "%d.%d.%d", &major, &minor, &patch) != 3 ||
        major != LIBPOSTERN_VERSION_MAJOR || minor != LIBPOSTERN_VERSION_MINOR ||
        patch != LIBPOSTERN_VERSION_PATCH)
        return fail("the library's version is not the header's");
    if (libpostern_new(&context)) return fail("new");
    /* By name: found in the installed tree, wherever that is. */
    if (libpostern_profile_load(&profile, argv[1])) return fail("profile");
    if (libpostern_policy_new(&policy) ||
        libpostern_policy_window(policy, "registers", 0, 0, 4096, LIBPOSTERN_READ | LIBPOSTERN_MMAP) ||
        libpostern_policy_ioctl(policy, "VFIO_DEVICE_GET_INFO"))
        return fail("policy");
    if (libpostern_policy_ioctl(policy, "VFIO_NONSENSE") != -EINVAL ||
        !strstr(libpostern_error(), "VFIO_NONSENSE"))
        return fail("an ioctl that there is not");
    if (libpostern_device_open(context, "ffff:ff:1f.7", &device) >= 0 || device)
        return fail("a device that there is not");
    libpostern_policy_free(policy);
    libpostern_profile_free(profile);
    return libpostern_free(context) ? fail("free") : 0;
}
