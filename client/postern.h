// SPDX-License-Identifier: Apache-2.0
/**
 * postern.h: what a client of a device includes to use the grant it was started with. C11 or C++17, header
 * only, Linux only, no dependency. (With -std=c11 instead of gnu11, define _GNU_SOURCE.)
 *
 *     char error[256];
 *     struct postern_grant* grant = postern_open(error, sizeof error);
 *     if (!grant) { fprintf(stderr, "%s\n", error); return 1; }
 *     volatile void* doorbell = postern_map_window(postern_get_window(grant, "doorbell"), PROT_WRITE);
 *     const struct postern_dma* ring = postern_get_dma(grant, "ring");
 *     void* memory = postern_map_dma(ring);         // the device sees the same bytes at ring->iova
 *     postern_mmio_write16(doorbell, 1);
 *     postern_irq_wait(postern_get_irq(grant, "vq"), NULL);
 *     postern_close(grant);
 *
 * How the grant arrives: fds by the sd_listen_fds(3) convention (LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES,
 * first fd 3), one of them, "manifest", a memfd with JSON that says what each one is. Or the same fds over a
 * unix socket: in a container whose runtime could not pass them, from POSTERN_GRANT_SOCKET, where
 * postern_open() looks, too; from a driver that uses libpostern, postern_open_socket().
 *
 * Errors: postern_open() and postern_open_socket() explain themselves in a line of text; every other function
 * returns -1 or NULL and sets errno. A lookup of a name that is not in the grant gives NULL, and every
 * function that takes a looked-up entry takes that NULL too and answers ENOENT, so that calls can be nested
 * as above.
 *
 * fds: the grant owns them all, they are close-on-exec from postern_open() on; postern_close() closes them.
 * Mappings are the caller's and outlive the grant. Names that end in _ are internal.
 */
#ifndef POSTERN_H
#define POSTERN_H

/* NOLINTBEGIN(modernize-use-nullptr): C */

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

/* Version of the manifest that this header reads. */
#define POSTERN_MANIFEST_VERSION 1

/* First passed fd, SD_LISTEN_FDS_START of sd_listen_fds(3). */
#define POSTERN_FIRST_FD 3

/* Where the grant of a container waits, to be given once. */
#ifndef POSTERN_GRANT_SOCKET
#define POSTERN_GRANT_SOCKET "/run/postern/grant.sock"
#endif

/* `access` of a window and of DMA memory. Equal to PROT_READ and PROT_WRITE on Linux, by intent. */
#define POSTERN_READ 1
#define POSTERN_WRITE 2

/* What a window can lose besides, see postern_restrict_window(): mmap(2), and pread(2) with pwrite(2). */
#define POSTERN_MMAP 4
#define POSTERN_PREAD 8

/* `slice` of a grant that is not for one slice (a device-wide setup or teardown program), and of its entries
 * that belong to no slice. */
#define POSTERN_NO_SLICE (-1)

/* Part of a region of the device that this grant may touch. */
struct postern_window {
    const char* name;
    int slice;            /* slice it belongs to, or POSTERN_NO_SLICE */
    uint32_t region;      /* VFIO region index: 0 to 5 are the BARs */
    uint64_t offset;      /* of its first byte in the region */
    uint64_t length;      /* in bytes */
    int access;           /* POSTERN_READ | POSTERN_WRITE */
    int mmap_fd;          /* borrowed; -1: this window cannot be mapped */
    uint64_t mmap_offset; /* of its first byte in mmap_fd; need not lie on a page */
    int io_fd;            /* borrowed; for pread(2) and pwrite(2); -1: unknown */
    uint64_t io_offset;   /* of its first byte in io_fd */
    int guard; /* its number among the windows of the guarded device fd, or, without a device fd, of
                  mmap_fd; -1: it is none of them */
};

/* Memory that is already mapped for DMA. */
struct postern_dma {
    const char* name;
    int slice;     /* slice it belongs to, or POSTERN_NO_SLICE */
    uint64_t size; /* in bytes */
    uint64_t iova; /* what the device calls the first byte */
    int access;    /* of the device: POSTERN_READ | POSTERN_WRITE */
    int fd;        /* borrowed; a memfd */
};

/* The part of the device's I/O address space that the client maps memory of its own into, see
 * postern_dma_map_memory(). */
struct postern_dma_map {
    int fd;             /* borrowed; the guarded iommufd; -1: the grant has no such part */
    uint32_t ioas;      /* id of the address space in it */
    uint64_t iova;      /* where the part begins, in the device's address space */
    uint64_t size;      /* bytes */
    uint64_t alignment; /* of addresses and lengths, bytes */
    int access;         /* PROT_READ, PROT_WRITE: the most that the device may be let do */
};

/* An interrupt that is already wired to an eventfd. */
struct postern_irq {
    const char* name;
    int slice;       /* slice it belongs to, or POSTERN_NO_SLICE */
    uint32_t index;  /* VFIO irq index: 0 INTx, 1 MSI, 2 MSI-X */
    uint32_t vector; /* within that index */
    int fd;          /* borrowed; an eventfd */
};

struct postern_named_fd {
    const char* name;
    int fd;
};

/* Read only for the caller. All strings live as long as the grant. */
struct postern_grant {
    const char* id;     /* as `postern ps` shows it and `postern revoke` takes it */
    const char* device; /* PCI address, e.g. "0000:00:02.0"; NULL without a device fd */
    int slice;          /* or POSTERN_NO_SLICE */
    int device_fd;      /* borrowed; the guarded fd (unguarded in setup programs); -1: there is none, as the
                           windows are all there is to the grant and are dma-bufs, or it has no device */
    struct postern_window* windows;
    size_t window_count;
    struct postern_dma* dma;
    size_t dma_count;
    struct postern_dma_map dma_map;
    struct postern_irq* irqs;
    size_t irq_count;
    struct postern_named_fd* fds; /* every passed fd */
    size_t fd_count;
    char* text_;  /* storage of the strings from the manifest */
    char* names_; /* storage of the fd names */
};

/* ---- JSON, strict (RFC 8259), bounded: no recursion deeper than POSTERN_JSON_DEPTH_, no number rounded ----
 */

enum {
    POSTERN_JSON_DEPTH_ = 16,
    POSTERN_JSON_MEMBERS_ = 8192, /* bounds the quadratic search for duplicate keys */
    POSTERN_MANIFEST_SIZE_ = 1 << 20,
    POSTERN_FDS_ = 8192,
    POSTERN_GUARD_WINDOWS_ = 256 /* eight bits name one in a request to the guard */
};

enum postern_json_type_ {
    POSTERN_JSON_NULL_,
    POSTERN_JSON_FALSE_,
    POSTERN_JSON_TRUE_,
    POSTERN_JSON_NUMBER_,
    POSTERN_JSON_STRING_,
    POSTERN_JSON_ARRAY_,
    POSTERN_JSON_OBJECT_
};

/* A value. Children are a list; 0 ends it, for node 0 is the root and nobody's child. */
struct postern_json_node_ {
    enum postern_json_type_ type;
    uint32_t begin; /* of a string's or number's text; strings are unescaped in place and end with NUL */
    uint32_t end;
    uint32_t key; /* of a member: where its key's text begins */
    uint32_t child;
    uint32_t next;
};

struct postern_json_ {
    char* text; /* length bytes and a NUL */
    uint32_t length;
    uint32_t at;
    struct postern_json_node_* nodes;
    uint32_t count;
    uint32_t capacity;
    char* error;
    size_t error_size;
};

/* Writes the line that explains a failure. Always -1. */
__attribute__((format(printf, 3, 4))) static inline int postern_say_(char* error, size_t size,
                                                                     const char* format, ...) {
    va_list list;
    if (!error || size == 0) return -1;
    va_start(list, format);
    (void)vsnprintf(error, size, format, list);
    va_end(list);
    return -1;
}

static inline int postern_json_bad_(struct postern_json_* j, const char* what) {
    return postern_say_(j->error, j->error_size, "postern: manifest: byte %lu: %s", (unsigned long)j->at,
                        what);
}

static inline void postern_json_space_(struct postern_json_* j) {
    while (j->at < j->length && (j->text[j->at] == ' ' || j->text[j->at] == '\t' || j->text[j->at] == '\n' ||
                                 j->text[j->at] == '\r')) {
        j->at++;
    }
}

/* The next byte, 0 at the end: no text is valid where a NUL stands outside a string. */
static inline unsigned char postern_json_peek_(const struct postern_json_* j) {
    return j->at < j->length ? (unsigned char)j->text[j->at] : 0;
}

static inline int postern_json_hex4_(struct postern_json_* j, uint32_t* value) {
    uint32_t result = 0;
    int i;
    for (i = 0; i < 4; i++) {
        unsigned char c = postern_json_peek_(j);
        uint32_t digit;
        if (c >= '0' && c <= '9') {
            digit = (uint32_t)c - '0';
        } else if (c >= 'a' && c <= 'f') {
            digit = (uint32_t)c - 'a' + 10;
        } else if (c >= 'A' && c <= 'F') {
            digit = (uint32_t)c - 'A' + 10;
        } else {
            return postern_json_bad_(j, "\\u needs four hexadecimal digits");
        }
        result = result * 16 + digit;
        j->at++;
    }
    *value = result;
    return 0;
}

/* Writes a code point as UTF-8 at *out, which never overtakes the reader: \uXXXX is longer than its UTF-8. */
static inline void postern_json_utf8_(char* text, uint32_t* out, uint32_t code) {
    if (code < 0x80) {
        text[(*out)++] = (char)code;
    } else if (code < 0x800) {
        text[(*out)++] = (char)(0xc0 | (code >> 6));
        text[(*out)++] = (char)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        text[(*out)++] = (char)(0xe0 | (code >> 12));
        text[(*out)++] = (char)(0x80 | ((code >> 6) & 0x3f));
        text[(*out)++] = (char)(0x80 | (code & 0x3f));
    } else {
        text[(*out)++] = (char)(0xf0 | (code >> 18));
        text[(*out)++] = (char)(0x80 | ((code >> 12) & 0x3f));
        text[(*out)++] = (char)(0x80 | ((code >> 6) & 0x3f));
        text[(*out)++] = (char)(0x80 | (code & 0x3f));
    }
}

/* Length of the well-formed UTF-8 sequence (RFC 3629) at the reader, 0 if there is none. */
static inline uint32_t postern_json_sequence_(const struct postern_json_* j) {
    const unsigned char* s = (const unsigned char*)j->text + j->at;
    uint32_t left = j->length - j->at;
    uint32_t size = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : 4;
    uint32_t i;
    if ((s[0] >= 0x80 && s[0] < 0xc2) || s[0] > 0xf4 || size > left) return 0;
    for (i = 1; i < size; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
    }
    if (s[0] == 0xe0 && s[1] < 0xa0) return 0; /* overlong */
    if (s[0] == 0xed && s[1] > 0x9f) return 0; /* a surrogate */
    if (s[0] == 0xf0 && s[1] < 0x90) return 0; /* overlong */
    if (s[0] == 0xf4 && s[1] > 0x8f) return 0; /* beyond U+10FFFF */
    return size;
}

static inline int postern_json_escape_(struct postern_json_* j, uint32_t* out) {
    unsigned char c = postern_json_peek_(j);
    uint32_t code = 0;
    j->at++;
    switch (c) {
        case '"':
        case '\\':
        case '/':
            j->text[(*out)++] = (char)c;
            return 0;
        case 'b':
            j->text[(*out)++] = '\b';
            return 0;
        case 'f':
            j->text[(*out)++] = '\f';
            return 0;
        case 'n':
            j->text[(*out)++] = '\n';
            return 0;
        case 'r':
            j->text[(*out)++] = '\r';
            return 0;
        case 't':
            j->text[(*out)++] = '\t';
            return 0;
        case 'u':
            break;
        default:
            j->at--;
            return postern_json_bad_(j, "unknown escape in a string");
    }
    if (postern_json_hex4_(j, &code)) return -1;
    if (code >= 0xd800 && code < 0xdc00) {
        uint32_t low = 0;
        if (postern_json_peek_(j) != '\\') return postern_json_bad_(j, "half a surrogate pair in a string");
        j->at++;
        if (postern_json_peek_(j) != 'u') return postern_json_bad_(j, "half a surrogate pair in a string");
        j->at++;
        if (postern_json_hex4_(j, &low)) return -1;
        if (low < 0xdc00 || low > 0xdfff) return postern_json_bad_(j, "half a surrogate pair in a string");
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code < 0xe000) {
        return postern_json_bad_(j, "half a surrogate pair in a string");
    }
    if (code == 0) return postern_json_bad_(j, "\\u0000 in a string");
    postern_json_utf8_(j->text, out, code);
    return 0;
}

/* The reader stands on the opening quote. */
static inline int postern_json_string_(struct postern_json_* j, uint32_t* begin, uint32_t* end) {
    uint32_t out;
    j->at++;
    *begin = out = j->at;
    for (;;) {
        unsigned char c = postern_json_peek_(j);
        if (j->at >= j->length) return postern_json_bad_(j, "the text ends inside a string");
        if (c == '"') break;
        if (c < 0x20) return postern_json_bad_(j, "control character in a string");
        if (c == '\\') {
            j->at++;
            if (postern_json_escape_(j, &out)) return -1;
        } else {
            uint32_t size = postern_json_sequence_(j);
            if (size == 0) return postern_json_bad_(j, "a string is not UTF-8");
            memmove(j->text + out, j->text + j->at, size);
            out += size;
            j->at += size;
        }
    }
    j->at++;
    j->text[out] = '\0'; /* at the closing quote or before it */
    *end = out;
    return 0;
}

static inline int postern_json_digits_(struct postern_json_* j) {
    if (postern_json_peek_(j) < '0' || postern_json_peek_(j) > '9') {
        return postern_json_bad_(j, "expected a digit");
    }
    while (postern_json_peek_(j) >= '0' && postern_json_peek_(j) <= '9') j->at++;
    return 0;
}

static inline int postern_json_number_(struct postern_json_* j) {
    if (postern_json_peek_(j) == '-') j->at++;
    if (postern_json_peek_(j) == '0') {
        j->at++; /* no digit may follow; the caller finds it in place of a comma or bracket */
    } else if (postern_json_digits_(j)) {
        return -1;
    }
    if (postern_json_peek_(j) == '.') {
        j->at++;
        if (postern_json_digits_(j)) return -1;
    }
    if (postern_json_peek_(j) == 'e' || postern_json_peek_(j) == 'E') {
        j->at++;
        if (postern_json_peek_(j) == '+' || postern_json_peek_(j) == '-') j->at++;
        if (postern_json_digits_(j)) return -1;
    }
    return 0;
}

static inline int postern_json_word_(struct postern_json_* j, const char* word) {
    uint32_t size = (uint32_t)strlen(word);
    if (j->length - j->at < size || memcmp(j->text + j->at, word, size) != 0) {
        return postern_json_bad_(j, "expected a JSON value");
    }
    j->at += size;
    return 0;
}

static inline int postern_json_add_(struct postern_json_* j, uint32_t* index) {
    if (j->count == j->capacity) {
        uint32_t capacity = j->capacity ? j->capacity * 2 : 64;
        void* nodes = realloc(j->nodes, (size_t)capacity * sizeof *j->nodes);
        if (!nodes) return postern_json_bad_(j, "out of memory");
        j->nodes = (struct postern_json_node_*)nodes;
        j->capacity = capacity;
    }
    *index = j->count++;
    memset(&j->nodes[*index], 0, sizeof *j->nodes);
    return 0;
}

/* Reads a member's key and colon; refuses a key that the object already has. */
static inline int postern_json_key_(struct postern_json_* j, uint32_t object, uint32_t* key) {
    uint32_t end = 0;
    uint32_t member;
    postern_json_space_(j);
    if (postern_json_peek_(j) != '"') return postern_json_bad_(j, "expected a key in quotes");
    if (postern_json_string_(j, key, &end)) return -1;
    for (member = j->nodes[object].child; member; member = j->nodes[member].next) {
        if (strcmp(j->text + j->nodes[member].key, j->text + *key) == 0) {
            return postern_json_bad_(j, "a key appears twice in one object");
        }
    }
    postern_json_space_(j);
    if (postern_json_peek_(j) != ':') return postern_json_bad_(j, "expected ':' after a key");
    j->at++;
    return 0;
}

/* Reads one value into a new node. Recursive, at most POSTERN_JSON_DEPTH_ deep. */
static inline int postern_json_value_(struct postern_json_* j, int depth, uint32_t* index) {
    unsigned char open;
    unsigned char close;
    uint32_t last = 0;
    uint32_t members = 0;
    if (depth > POSTERN_JSON_DEPTH_) return postern_json_bad_(j, "nested too deeply");
    if (postern_json_add_(j, index)) return -1;
    postern_json_space_(j);
    open = postern_json_peek_(j);
    j->nodes[*index].begin = j->at;
    switch (open) {
        case 'n':
            j->nodes[*index].type = POSTERN_JSON_NULL_;
            return postern_json_word_(j, "null");
        case 'f':
            j->nodes[*index].type = POSTERN_JSON_FALSE_;
            return postern_json_word_(j, "false");
        case 't':
            j->nodes[*index].type = POSTERN_JSON_TRUE_;
            return postern_json_word_(j, "true");
        case '"':
            j->nodes[*index].type = POSTERN_JSON_STRING_;
            return postern_json_string_(j, &j->nodes[*index].begin, &j->nodes[*index].end);
        case '[':
            j->nodes[*index].type = POSTERN_JSON_ARRAY_;
            close = ']';
            break;
        case '{':
            j->nodes[*index].type = POSTERN_JSON_OBJECT_;
            close = '}';
            break;
        default:
            if (open != '-' && (open < '0' || open > '9'))
                return postern_json_bad_(j, "expected a JSON value");
            j->nodes[*index].type = POSTERN_JSON_NUMBER_;
            if (postern_json_number_(j)) return -1;
            j->nodes[*index].end = j->at;
            return 0;
    }
    j->at++;
    postern_json_space_(j);
    if (postern_json_peek_(j) == close) {
        j->at++;
        return 0;
    }
    for (;;) {
        uint32_t key = 0;
        uint32_t child = 0;
        if (++members > POSTERN_JSON_MEMBERS_) return postern_json_bad_(j, "too many members");
        if (open == '{' && postern_json_key_(j, *index, &key)) return -1;
        if (postern_json_value_(j, depth + 1, &child)) return -1;
        j->nodes[child].key = key;
        if (last) {
            j->nodes[last].next = child;
        } else {
            j->nodes[*index].child = child;
        }
        last = child;
        postern_json_space_(j);
        if (postern_json_peek_(j) == close) break;
        if (postern_json_peek_(j) != ',') {
            return postern_json_bad_(j, open == '{' ? "expected ',' or '}'" : "expected ',' or ']'");
        }
        j->at++;
    }
    j->at++;
    return 0;
}

/* ---- typed reading of the manifest; `where` is the path so far, e.g. "dma[0]", "" at the top ---- */

static inline int postern_bad_(struct postern_json_* j, const char* where, const char* key,
                               const char* what) {
    return postern_say_(j->error, j->error_size, "postern: manifest: %s%s%s: %s", where, *where ? "." : "",
                        key, what);
}

/* Index of the member, 0 if the object has none of that name. Other members are for newer clients. */
static inline uint32_t postern_member_(const struct postern_json_* j, uint32_t object, const char* key) {
    uint32_t member;
    if (j->nodes[object].type != POSTERN_JSON_OBJECT_) return 0;
    for (member = j->nodes[object].child; member; member = j->nodes[member].next) {
        if (strcmp(j->text + j->nodes[member].key, key) == 0) return member;
    }
    return 0;
}

/* A number's exact value; -1 if it is negative, has a fraction or exponent, or is above max. */
static inline int postern_exact_(const struct postern_json_* j, uint32_t node, uint64_t max,
                                 uint64_t* value) {
    uint64_t result = 0;
    uint32_t i;
    if (j->nodes[node].type != POSTERN_JSON_NUMBER_) return -1;
    for (i = j->nodes[node].begin; i < j->nodes[node].end; i++) {
        unsigned char c = (unsigned char)j->text[i];
        uint64_t digit;
        if (c < '0' || c > '9') return -1;
        digit = (uint64_t)c - '0';
        if (result > (UINT64_MAX - digit) / 10) return -1;
        result = result * 10 + digit;
    }
    if (result > max) return -1;
    *value = result;
    return 0;
}

static inline int postern_integer_(struct postern_json_* j, uint32_t object, const char* where,
                                   const char* key, uint64_t max, uint64_t* value) {
    uint32_t member = postern_member_(j, object, key);
    char what[64];
    if (!member) return postern_bad_(j, where, key, "is missing");
    if (postern_exact_(j, member, max, value) == 0) return 0;
    (void)snprintf(what, sizeof what, "must be an integer from 0 to %llu", (unsigned long long)max);
    return postern_bad_(j, where, key, what);
}

static inline int postern_string_(struct postern_json_* j, uint32_t object, const char* where,
                                  const char* key, const char** value) {
    uint32_t member = postern_member_(j, object, key);
    if (!member) return postern_bad_(j, where, key, "is missing");
    if (j->nodes[member].type != POSTERN_JSON_STRING_) return postern_bad_(j, where, key, "must be a string");
    *value = j->text + j->nodes[member].begin;
    return 0;
}

static inline int postern_access_(struct postern_json_* j, uint32_t object, const char* where, int* access) {
    const char* text = "";
    if (postern_string_(j, object, where, "access", &text)) return -1;
    if (strcmp(text, "r") == 0) {
        *access = POSTERN_READ;
    } else if (strcmp(text, "w") == 0) {
        *access = POSTERN_WRITE;
    } else if (strcmp(text, "rw") == 0) {
        *access = POSTERN_READ | POSTERN_WRITE;
    } else {
        return postern_bad_(j, where, "access", "must be \"r\", \"w\" or \"rw\"");
    }
    return 0;
}

/* An entry's slice: its own key, else that of the whole grant. */
static inline int postern_slice_(struct postern_json_* j, uint32_t object, const char* where, int otherwise,
                                 int* slice) {
    uint64_t value = 0;
    *slice = otherwise;
    if (!postern_member_(j, object, "slice")) return 0;
    if (postern_integer_(j, object, where, "slice", INT32_MAX, &value)) return -1;
    *slice = (int)value;
    return 0;
}

/* fd of that name ("dma.ring"), -1 and ENOENT if the grant has none. Borrowed. */
static inline int postern_fd(const struct postern_grant* grant, const char* name) {
    size_t i;
    for (i = 0; i < grant->fd_count; i++) {
        if (strcmp(grant->fds[i].name, name) == 0) return grant->fds[i].fd;
    }
    errno = ENOENT;
    return -1;
}

static inline int postern_fd_member_(struct postern_json_* j, const struct postern_grant* grant,
                                     uint32_t object, const char* where, int* fd) {
    const char* name = "";
    if (postern_string_(j, object, where, "fd", &name)) return -1;
    *fd = postern_fd(grant, name);
    return *fd < 0 ? postern_bad_(j, where, "fd", "names an fd that was not passed") : 0;
}

/* { "fd": NAME, "offset": N } under `key`, for length bytes; absent is fine and leaves *fd alone. */
static inline int postern_hint_(struct postern_json_* j, const struct postern_grant* grant, uint32_t object,
                                const char* where, const char* key, uint64_t length, int* fd,
                                uint64_t* offset) {
    char inner[64];
    uint32_t hint = postern_member_(j, object, key);
    if (!hint) return 0;
    if (j->nodes[hint].type != POSTERN_JSON_OBJECT_) return postern_bad_(j, where, key, "must be an object");
    (void)snprintf(inner, sizeof inner, "%s.%s", where, key);
    if (postern_fd_member_(j, grant, hint, inner, fd)) return -1;
    /* A file offset is signed (off_t): the whole window must lie below its end. */
    return postern_integer_(j, hint, inner, "offset", (uint64_t)INT64_MAX - length, offset);
}

static inline int postern_read_window_(struct postern_json_* j, const struct postern_grant* grant,
                                       uint32_t node, const char* where, struct postern_window* window) {
    uint64_t region = 0;
    if (postern_string_(j, node, where, "name", &window->name)) return -1;
    if (postern_slice_(j, node, where, grant->slice, &window->slice)) return -1;
    if (postern_integer_(j, node, where, "region", UINT32_MAX, &region)) return -1;
    window->region = (uint32_t)region;
    if (postern_integer_(j, node, where, "offset", INT64_MAX, &window->offset)) return -1;
    if (postern_integer_(j, node, where, "length", (uint64_t)INT64_MAX - window->offset, &window->length)) {
        return -1;
    }
    if (window->length == 0) return postern_bad_(j, where, "length", "must not be 0");
    if (postern_access_(j, node, where, &window->access)) return -1;
    window->mmap_fd = -1;
    window->io_fd = -1;
    window->guard = -1;
    if (postern_member_(j, node, "guard")) {
        uint64_t number = 0;
        if (postern_integer_(j, node, where, "guard", POSTERN_GUARD_WINDOWS_ - 1, &number)) return -1;
        window->guard = (int)number;
    }
    if (postern_hint_(j, grant, node, where, "mmap", window->length, &window->mmap_fd,
                      &window->mmap_offset)) {
        return -1;
    }
    /* On a VFIO device fd the same offset serves mmap and pread; a dma-buf has no pread. */
    if (window->mmap_fd >= 0 && window->mmap_fd == grant->device_fd) {
        window->io_fd = window->mmap_fd;
        window->io_offset = window->mmap_offset;
    }
    return postern_hint_(j, grant, node, where, "pread", window->length, &window->io_fd, &window->io_offset);
}

static inline int postern_read_dma_(struct postern_json_* j, const struct postern_grant* grant, uint32_t node,
                                    const char* where, struct postern_dma* dma) {
    if (postern_string_(j, node, where, "name", &dma->name)) return -1;
    if (postern_slice_(j, node, where, grant->slice, &dma->slice)) return -1;
    if (postern_integer_(j, node, where, "size", INT64_MAX, &dma->size)) return -1;
    if (dma->size == 0) return postern_bad_(j, where, "size", "must not be 0");
    if (postern_integer_(j, node, where, "iova", UINT64_MAX - dma->size, &dma->iova)) return -1;
    if (postern_access_(j, node, where, &dma->access)) return -1;
    return postern_fd_member_(j, grant, node, where, &dma->fd);
}

static inline int postern_read_irq_(struct postern_json_* j, const struct postern_grant* grant, uint32_t node,
                                    const char* where, struct postern_irq* irq) {
    uint64_t value = 0;
    if (postern_string_(j, node, where, "name", &irq->name)) return -1;
    if (postern_slice_(j, node, where, grant->slice, &irq->slice)) return -1;
    if (postern_integer_(j, node, where, "index", UINT32_MAX, &value)) return -1;
    irq->index = (uint32_t)value;
    if (postern_integer_(j, node, where, "vector", UINT32_MAX, &value)) return -1;
    irq->vector = (uint32_t)value;
    return postern_fd_member_(j, grant, node, where, &irq->fd);
}

static inline int postern_read_dma_map_(struct postern_json_* j, struct postern_grant* grant) {
    const char* where = "dma_map";
    struct postern_dma_map* map = &grant->dma_map;
    uint64_t ioas = 0;
    uint32_t node = postern_member_(j, 0, where);
    map->fd = -1;
    if (!node) return 0;
    if (j->nodes[node].type != POSTERN_JSON_OBJECT_) return postern_bad_(j, "", where, "must be an object");
    if (postern_integer_(j, node, where, "ioas", UINT32_MAX, &ioas)) return -1;
    map->ioas = (uint32_t)ioas;
    if (postern_integer_(j, node, where, "size", INT64_MAX, &map->size)) return -1;
    if (map->size == 0) return postern_bad_(j, where, "size", "must not be 0");
    if (postern_integer_(j, node, where, "iova", UINT64_MAX - map->size, &map->iova)) return -1;
    if (postern_integer_(j, node, where, "alignment", INT64_MAX, &map->alignment)) return -1;
    if (postern_access_(j, node, where, &map->access)) return -1;
    return postern_fd_member_(j, grant, node, where, &map->fd);
}

/* Starts on an array of the manifest: its first entry in *node (0 if absent or empty) and zeroed room for
 * all. */
static inline int postern_begin_array_(struct postern_json_* j, const char* key, size_t entry_size,
                                       uint32_t* node, void** entries) {
    uint32_t array = postern_member_(j, 0, key);
    size_t count = 0;
    *node = 0;
    if (!array) return 0;
    if (j->nodes[array].type != POSTERN_JSON_ARRAY_) return postern_bad_(j, "", key, "must be an array");
    for (*node = j->nodes[array].child; *node; *node = j->nodes[*node].next) count++;
    if (count == 0) return 0;
    *entries = calloc(count, entry_size);
    if (!*entries) return postern_bad_(j, "", key, "out of memory");
    *node = j->nodes[array].child;
    return 0;
}

static inline int postern_read_arrays_(struct postern_json_* j, struct postern_grant* grant) {
    char where[48];
    uint32_t node;
    void* entries = NULL;
    if (postern_begin_array_(j, "windows", sizeof *grant->windows, &node, &entries)) return -1;
    grant->windows = (struct postern_window*)entries;
    for (; node; node = j->nodes[node].next, grant->window_count++) {
        (void)snprintf(where, sizeof where, "windows[%lu]", (unsigned long)grant->window_count);
        if (postern_read_window_(j, grant, node, where, &grant->windows[grant->window_count])) return -1;
    }
    entries = NULL;
    if (postern_begin_array_(j, "dma", sizeof *grant->dma, &node, &entries)) return -1;
    grant->dma = (struct postern_dma*)entries;
    for (; node; node = j->nodes[node].next, grant->dma_count++) {
        (void)snprintf(where, sizeof where, "dma[%lu]", (unsigned long)grant->dma_count);
        if (postern_read_dma_(j, grant, node, where, &grant->dma[grant->dma_count])) return -1;
    }
    entries = NULL;
    if (postern_begin_array_(j, "irqs", sizeof *grant->irqs, &node, &entries)) return -1;
    grant->irqs = (struct postern_irq*)entries;
    for (; node; node = j->nodes[node].next, grant->irq_count++) {
        (void)snprintf(where, sizeof where, "irqs[%lu]", (unsigned long)grant->irq_count);
        if (postern_read_irq_(j, grant, node, where, &grant->irqs[grant->irq_count])) return -1;
    }
    return 0;
}

/* The manifest's "fds" and LISTEN_FDNAMES must say the same: on a mismatch no guess is a safe one. */
static inline int postern_check_fds_(struct postern_json_* j, const struct postern_grant* grant) {
    uint32_t fds = postern_member_(j, 0, "fds");
    uint32_t member;
    if (!fds) return postern_bad_(j, "", "fds", "is missing");
    if (j->nodes[fds].type != POSTERN_JSON_OBJECT_) return postern_bad_(j, "", "fds", "must be an object");
    for (member = j->nodes[fds].child; member; member = j->nodes[member].next) {
        const char* name = j->text + j->nodes[member].key;
        uint64_t value = 0;
        if (postern_exact_(j, member, INT32_MAX, &value)) {
            return postern_bad_(j, "fds", name, "must be an fd number");
        }
        if (postern_fd(grant, name) != (int)value) {
            return postern_bad_(j, "fds", name, "is not the fd that LISTEN_FDNAMES gives this name");
        }
    }
    return 0;
}

static inline int postern_read_manifest_(struct postern_json_* j, struct postern_grant* grant) {
    uint64_t version = 0;
    uint32_t device;
    uint32_t root = 0;
    int is_without;
    if (postern_json_value_(j, 1, &root)) return -1;
    postern_json_space_(j);
    if (j->at != j->length) return postern_json_bad_(j, "text after the end of the manifest");
    if (j->nodes[0].type != POSTERN_JSON_OBJECT_) return postern_json_bad_(j, "not a JSON object");
    if (postern_integer_(j, 0, "", "postern", UINT64_MAX, &version)) return -1;
    if (version != POSTERN_MANIFEST_VERSION) {
        return postern_bad_(j, "", "postern",
                            "is a version that this client does not know; rebuild the client");
    }
    if (postern_string_(j, 0, "", "grant", &grant->id)) return -1;
    device = postern_member_(j, 0, "device");
    is_without = device && j->nodes[device].type == POSTERN_JSON_FALSE_;
    if (device && !is_without && j->nodes[device].type != POSTERN_JSON_NULL_ &&
        postern_string_(j, 0, "", "device", &grant->device)) {
        return -1;
    }
    device = postern_member_(j, 0, "slice");
    if (device && j->nodes[device].type != POSTERN_JSON_NULL_ &&
        postern_slice_(j, 0, "", POSTERN_NO_SLICE, &grant->slice)) {
        return -1;
    }
    if (postern_check_fds_(j, grant)) return -1;
    grant->device_fd = postern_fd(grant, "device");
    if (is_without && grant->device_fd >= 0) {
        return postern_bad_(j, "", "device", "is false, but an fd of that name was passed");
    }
    if (postern_read_dma_map_(j, grant)) return -1;
    return postern_read_arrays_(j, grant);
}

/* Frees the grant, leaves its fds open: for a caller that keeps or has passed on the fds. NULL is fine. */
static inline void postern_free(struct postern_grant* grant) {
    if (!grant) return;
    free(grant->windows);
    free(grant->dma);
    free(grant->irqs);
    free(grant->fds);
    free(grant->text_);
    free(grant->names_);
    free(grant);
}

/* Closes every fd of the grant and frees it. Mappings stay. NULL is fine. */
static inline void postern_close(struct postern_grant* grant) {
    size_t i;
    if (!grant) return;
    for (i = 0; i < grant->fd_count; i++) (void)close(grant->fds[i].fd);
    postern_free(grant);
}

/* Splits "a:b:c" into grant->fds, numbered from first_fd. */
static inline int postern_split_names_(struct postern_grant* grant, const char* names, int first_fd,
                                       char* error, size_t error_size) {
    size_t count = *names ? 1 : 0;
    size_t i;
    size_t k;
    char* at;
    const char* p;
    for (p = names; *p; p++) count += *p == ':';
    if (count > POSTERN_FDS_)
        return postern_say_(error, error_size, "postern: LISTEN_FDNAMES: too many names");
    grant->names_ = (char*)malloc(strlen(names) + 1);
    grant->fds = (struct postern_named_fd*)calloc(count ? count : 1, sizeof *grant->fds);
    if (!grant->names_ || !grant->fds) return postern_say_(error, error_size, "postern: out of memory");
    memcpy(grant->names_, names, strlen(names) + 1);
    at = grant->names_;
    for (i = 0; i < count; i++) {
        char* colon = strchr(at, ':');
        if (colon) *colon = '\0';
        for (k = 0; k < i; k++) {
            if (strcmp(grant->fds[k].name, at) == 0 && strcmp(at, "unknown") != 0) {
                return postern_say_(error, error_size, "postern: LISTEN_FDNAMES: \"%s\" appears twice", at);
            }
        }
        grant->fds[i].name = at;
        grant->fds[i].fd = first_fd + (int)i;
        at = colon ? colon + 1 : at;
    }
    grant->fd_count = count;
    return 0;
}

/* Builds a grant from a manifest's text and the names of the fds ("manifest:device:dma.ring", the first is
 * first_fd), without a look at the fds themselves. postern_open() is what a client wants; this one is for
 * tests and for fds that arrived some other way. NULL with a line in error; free with postern_close() or
 * postern_free(). */
static inline struct postern_grant* postern_parse(const char* text, size_t length, const char* names,
                                                  int first_fd, char* error, size_t error_size) {
    struct postern_json_ j;
    struct postern_grant* grant = (struct postern_grant*)calloc(1, sizeof *grant);
    int failed;
    if (!grant) {
        postern_say_(error, error_size, "postern: out of memory");
        return NULL;
    }
    grant->slice = POSTERN_NO_SLICE;
    grant->device_fd = -1;
    if (length > POSTERN_MANIFEST_SIZE_) {
        postern_say_(error, error_size, "postern: manifest: larger than %d bytes",
                     (int)POSTERN_MANIFEST_SIZE_);
        postern_free(grant);
        return NULL;
    }
    if (postern_split_names_(grant, names, first_fd, error, error_size)) {
        postern_free(grant);
        return NULL;
    }
    memset(&j, 0, sizeof j);
    j.error = error;
    j.error_size = error_size;
    grant->text_ = (char*)malloc(length + 1);
    if (!grant->text_) {
        postern_say_(error, error_size, "postern: out of memory");
        postern_free(grant);
        return NULL;
    }
    if (length) memcpy(grant->text_, text, length);
    grant->text_[length] = '\0';
    j.text = grant->text_;
    j.length = (uint32_t)length;
    failed = postern_read_manifest_(&j, grant);
    free(j.nodes);
    if (failed) {
        postern_free(grant);
        return NULL;
    }
    return grant;
}

/* ---- the fds that this process was started with ---- */

/* A decimal number of an environment variable; -1 with a line in error. */
static inline long postern_environment_(const char* name, char* error, size_t error_size) {
    const char* text = getenv(name);
    char* end;
    long value;
    if (!text) {
        return postern_say_(error, error_size,
                            "postern: %s is not set, and there is no %s: no grant was passed; start this "
                            "program with 'postern "
                            "run --device BDF --profile PROFILE -- PROGRAM', or its container with a slice",
                            name, POSTERN_GRANT_SOCKET);
    }
    errno = 0;
    value = strtol(text, &end, 10);
    if (errno || end == text || *end || *text < '0' || *text > '9') {
        return postern_say_(error, error_size, "postern: %s=%s is not a number", name, text);
    }
    return value;
}

/* Where the manifest is among the names, -1 if it is not. */
static inline int postern_manifest_index_(const char* names) {
    int index = 0;
    for (;;) {
        size_t size = strcspn(names, ":");
        if (size == strlen("manifest") && memcmp(names, "manifest", size) == 0) return index;
        if (!names[size]) return -1;
        names += size + 1;
        index++;
    }
}

/* Reads a whole file with pread(2), for others may share its position. The caller frees. */
static inline char* postern_read_file_(int fd, size_t* length, char* error, size_t error_size) {
    struct stat status;
    char* text;
    size_t have = 0;
    if (fstat(fd, &status) < 0) {
        postern_say_(error, error_size, "postern: manifest: fd %d: %s", fd, strerror(errno));
        return NULL;
    }
    if (status.st_size <= 0 || status.st_size > POSTERN_MANIFEST_SIZE_) {
        postern_say_(error, error_size, "postern: manifest: fd %d has %lld bytes, expected 1 to %d", fd,
                     (long long)status.st_size, (int)POSTERN_MANIFEST_SIZE_);
        return NULL;
    }
    text = (char*)malloc((size_t)status.st_size);
    if (!text) {
        postern_say_(error, error_size, "postern: out of memory");
        return NULL;
    }
    while (have < (size_t)status.st_size) {
        ssize_t got = pread(fd, text + have, (size_t)status.st_size - have, (off_t)have);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            postern_say_(error, error_size, "postern: manifest: read of fd %d: %s", fd,
                         got < 0 ? strerror(errno) : "it ended early");
            free(text);
            return NULL;
        }
        have += (size_t)got;
    }
    *length = have;
    return text;
}

/* Every fd must be open; a helper that the client may start must not inherit the device by accident. */
static inline int postern_close_on_exec_(const struct postern_grant* grant, char* error, size_t error_size) {
    size_t i;
    for (i = 0; i < grant->fd_count; i++) {
        int flags = fcntl(grant->fds[i].fd, F_GETFD);
        if (flags < 0 || fcntl(grant->fds[i].fd, F_SETFD, flags | FD_CLOEXEC) < 0) {
            return postern_say_(error, error_size, "postern: fd %d (%s): %s", grant->fds[i].fd,
                                grant->fds[i].name, strerror(errno));
        }
    }
    return 0;
}

static inline struct postern_grant* postern_open_path(const char* path, char* error, size_t error_size);

/* The grant that this process was started with or, without LISTEN_FDS, the one that waits for its container
 * at POSTERN_GRANT_SOCKET. NULL with one line of text in error (always ended, cut to error_size). The
 * environment stays as it is, so call it once: a second grant would own the same fds. */
static inline struct postern_grant* postern_open(char* error, size_t error_size) {
    const char* names = getenv("LISTEN_FDNAMES");
    long count = postern_environment_("LISTEN_FDS", error, error_size);
    long pid = count < 0 ? -1 : postern_environment_("LISTEN_PID", error, error_size);
    int index;
    size_t length = 0;
    char* text;
    struct postern_grant* grant;
    if (!getenv("LISTEN_FDS") && access(POSTERN_GRANT_SOCKET, F_OK) == 0)
        return postern_open_path(POSTERN_GRANT_SOCKET, error, error_size);
    if (count < 0 || pid < 0) return NULL;
    if (pid != (long)getpid()) {
        postern_say_(
            error, error_size,
            "postern: LISTEN_PID is %ld but this is process %ld: the grant was passed to another process; "
            "start this program directly, or with exec from a shell",
            pid, (long)getpid());
        return NULL;
    }
    index = names ? postern_manifest_index_(names) : -1;
    if (index < 0) {
        postern_say_(error, error_size,
                     "postern: LISTEN_FDNAMES=%s has no \"manifest\": these fds are not from postern",
                     names ? names : "");
        return NULL;
    }
    text = postern_read_file_(POSTERN_FIRST_FD + index, &length, error, error_size);
    if (!text) return NULL;
    grant = postern_parse(text, length, names, POSTERN_FIRST_FD, error, error_size);
    free(text);
    if (!grant) return NULL;
    if (grant->fd_count != (size_t)count) {
        postern_say_(error, error_size, "postern: LISTEN_FDS is %ld but LISTEN_FDNAMES has %lu names", count,
                     (unsigned long)grant->fd_count);
        postern_free(grant);
        return NULL;
    }
    if (postern_close_on_exec_(grant, error, error_size)) {
        postern_free(grant);
        return NULL;
    }
    return grant;
}

/* ---- a grant that comes over a unix socket ---- */

enum { POSTERN_SOCKET_FDS_ = 253, POSTERN_SOCKET_NAMES_ = 16384 };

/* What stands in front of the names; both ends run on one machine. */
struct postern_socket_header_ {
    char magic[8]; /* "postern" */
    uint32_t version;
    uint32_t names; /* bytes of names that follow: "manifest:device:...", in the order of the fds */
};

/* What has arrived so far. */
struct postern_socket_ {
    char data[sizeof(struct postern_socket_header_) + POSTERN_SOCKET_NAMES_ + 1];
    size_t have;
    int fds[POSTERN_SOCKET_FDS_];
    size_t fd_count;
    int cut; /* the kernel left fds out */
};

static inline void postern_socket_drop_(struct postern_socket_* in) {
    size_t i;
    for (i = 0; i < in->fd_count; i++) (void)close(in->fds[i]);
    in->fd_count = 0;
}

/* One recvmsg(2) of at most `most` bytes. 0, or -1 with a line in error. */
static inline int postern_socket_take_(int socket, struct postern_socket_* in, size_t most, char* error,
                                       size_t error_size) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * POSTERN_SOCKET_FDS_)];
    } control;
    struct iovec part;
    struct msghdr message;
    struct cmsghdr* head;
    ssize_t got;
    memset(&message, 0, sizeof message);
    part.iov_base = in->data + in->have;
    part.iov_len = most;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    do {
        got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0) return postern_say_(error, error_size, "postern: socket %d: %s", socket, strerror(errno));
    if (message.msg_flags & MSG_CTRUNC) in->cut = 1;
    for (head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head)) {
        size_t count;
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
        count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (count > POSTERN_SOCKET_FDS_ - in->fd_count) count = POSTERN_SOCKET_FDS_ - in->fd_count;
        memcpy(in->fds + in->fd_count, CMSG_DATA(head), count * sizeof(int));
        in->fd_count += count;
    }
    if (got == 0)
        return postern_say_(error, error_size, "postern: socket %d: it ended before a grant came", socket);
    in->have += (size_t)got;
    return 0;
}

/* All of one message: the header says how long it is. */
static inline int postern_socket_read_(int socket, struct postern_socket_* in, char* error,
                                       size_t error_size) {
    struct postern_socket_header_ header;
    /* A packet socket gives the whole packet or loses the rest; a stream gives what is there, and more may be
     * another message's: there the first piece is sent as one with the fds. */
    int type = 0;
    socklen_t size = sizeof type;
    size_t most = sizeof header;
    if (getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
        return postern_say_(error, error_size, "postern: socket %d: %s", socket, strerror(errno));
    if (type != SOCK_STREAM) most = sizeof in->data - 1;
    while (in->have < sizeof header) {
        if (postern_socket_take_(socket, in, most - in->have, error, error_size)) return -1;
        if (type != SOCK_STREAM) break;
    }
    memset(&header, 0, sizeof header);
    if (in->have >= sizeof header) memcpy(&header, in->data, sizeof header);
    if (memcmp(header.magic, "postern", sizeof header.magic) != 0)
        return postern_say_(error, error_size, "postern: socket %d: what came is no grant", socket);
    if (header.version != 1) {
        return postern_say_(
            error, error_size,
            "postern: socket %d: grant of version %u, which this client does not know; rebuild the client",
            socket, (unsigned)header.version);
    }
    if (header.names > POSTERN_SOCKET_NAMES_)
        return postern_say_(error, error_size, "postern: socket %d: %u bytes of names", socket,
                            (unsigned)header.names);
    while (type == SOCK_STREAM && in->have < sizeof header + header.names) {
        if (postern_socket_take_(socket, in, sizeof header + header.names - in->have, error, error_size))
            return -1;
    }
    if (in->have != sizeof header + header.names)
        return postern_say_(error, error_size, "postern: socket %d: the grant is cut off", socket);
    in->data[in->have] = '\0';
    if (strlen(in->data + sizeof header) != header.names)
        return postern_say_(error, error_size, "postern: socket %d: a name with a NUL", socket);
    return 0;
}

/* The manifest counts fds from POSTERN_FIRST_FD; here they have the numbers that they arrived with. */
static inline int postern_arrived_(const struct postern_socket_* in, int fd) {
    return fd < POSTERN_FIRST_FD ? fd : in->fds[fd - POSTERN_FIRST_FD];
}

static inline void postern_renumber_(struct postern_grant* grant, const struct postern_socket_* in) {
    size_t i;
    for (i = 0; i < grant->window_count; i++) {
        grant->windows[i].mmap_fd = postern_arrived_(in, grant->windows[i].mmap_fd);
        grant->windows[i].io_fd = postern_arrived_(in, grant->windows[i].io_fd);
    }
    for (i = 0; i < grant->dma_count; i++) grant->dma[i].fd = postern_arrived_(in, grant->dma[i].fd);
    for (i = 0; i < grant->irq_count; i++) grant->irqs[i].fd = postern_arrived_(in, grant->irqs[i].fd);
    for (i = 0; i < grant->fd_count; i++) grant->fds[i].fd = postern_arrived_(in, grant->fds[i].fd);
    grant->device_fd = postern_arrived_(in, grant->device_fd);
}

static inline struct postern_grant* postern_socket_grant_(const struct postern_socket_* in, char* error,
                                                          size_t error_size) {
    const char* names = in->data + sizeof(struct postern_socket_header_);
    const int index = postern_manifest_index_(names);
    const char* colon;
    size_t count = *names ? 1 : 0;
    size_t length = 0;
    char* text;
    struct postern_grant* grant;
    for (colon = strchr(names, ':'); colon; colon = strchr(colon + 1, ':')) count++;
    if (in->cut || in->fd_count != count) {
        postern_say_(
            error, error_size,
            "postern: %lu of the grant's %lu fds arrived: the guard gives a device only to processes in its "
            "sandbox (was this one admitted?), or the limit of open files (ulimit -n) is reached",
            (unsigned long)in->fd_count, (unsigned long)count);
        return NULL;
    }
    if (index < 0) {
        postern_say_(error, error_size, "postern: the grant has no \"manifest\"");
        return NULL;
    }
    text = postern_read_file_(in->fds[index], &length, error, error_size);
    if (!text) return NULL;
    grant = postern_parse(text, length, names, POSTERN_FIRST_FD, error, error_size);
    free(text);
    if (grant) postern_renumber_(grant, in);
    return grant;
}

/* The next grant that comes over `socket`, a connected unix socket (stream or packets) that stays the
 * caller's; waits as the socket does. NULL with one line of text in error, and then no fd of it is left open.
 * Without the guard's leave the device does not arrive: the sender admits this process to the grant's sandbox
 * first. */
static inline struct postern_grant* postern_open_socket(int socket, char* error, size_t error_size) {
    struct postern_socket_* in = (struct postern_socket_*)calloc(1, sizeof *in);
    struct postern_grant* grant = NULL;
    if (!in) {
        postern_say_(error, error_size, "postern: out of memory");
        return NULL;
    }
    if (postern_socket_read_(socket, in, error, error_size) == 0)
        grant = postern_socket_grant_(in, error, error_size);
    if (!grant) postern_socket_drop_(in);
    free(in);
    return grant;
}

/* The grant that whoever listens at `path` gives to the first process that asks (SOCK_SEQPACKET). NULL with
 * one line of text in error. */
static inline struct postern_grant* postern_open_path(const char* path, char* error, size_t error_size) {
    struct sockaddr_un address;
    struct postern_grant* grant;
    int connection;
    int failed;
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address.sun_path) {
        postern_say_(error, error_size, "postern: %s: too long for the path of a socket", path);
        return NULL;
    }
    memcpy(address.sun_path, path, strlen(path));
    connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (connection < 0) {
        postern_say_(error, error_size, "postern: %s: socket: %s", path, strerror(errno));
        return NULL;
    }
    do {
        failed = connect(connection, (const struct sockaddr*)&address, sizeof address);
    } while (failed && errno == EINTR);
    if (failed) {
        const int why = errno;
        postern_say_(error, error_size, "postern: %s: %s%s", path, strerror(why),
                     why == ECONNREFUSED
                         ? ": nobody gives a grant here any more; a container's is given once, "
                           "to the first program that asks"
                         : "");
        (void)close(connection);
        return NULL;
    }
    grant = postern_open_socket(connection, error, error_size);
    (void)close(connection);
    return grant;
}

/* ---- looking things up; NULL and ENOENT when the grant has none of that name ---- */

static inline const struct postern_window* postern_get_window_in_slice(const struct postern_grant* grant,
                                                                       const char* name, int slice) {
    size_t i;
    for (i = 0; i < grant->window_count; i++) {
        if (grant->windows[i].slice == slice && strcmp(grant->windows[i].name, name) == 0) {
            return &grant->windows[i];
        }
    }
    errno = ENOENT;
    return NULL;
}

static inline const struct postern_dma* postern_get_dma_in_slice(const struct postern_grant* grant,
                                                                 const char* name, int slice) {
    size_t i;
    for (i = 0; i < grant->dma_count; i++) {
        if (grant->dma[i].slice == slice && strcmp(grant->dma[i].name, name) == 0) return &grant->dma[i];
    }
    errno = ENOENT;
    return NULL;
}

static inline const struct postern_irq* postern_get_irq_in_slice(const struct postern_grant* grant,
                                                                 const char* name, int slice) {
    size_t i;
    for (i = 0; i < grant->irq_count; i++) {
        if (grant->irqs[i].slice == slice && strcmp(grant->irqs[i].name, name) == 0) return &grant->irqs[i];
    }
    errno = ENOENT;
    return NULL;
}

/* Of the grant's own slice: what a client wants. Setup programs name the slice. */
static inline const struct postern_window* postern_get_window(const struct postern_grant* grant,
                                                              const char* name) {
    return postern_get_window_in_slice(grant, name, grant->slice);
}

static inline const struct postern_dma* postern_get_dma(const struct postern_grant* grant, const char* name) {
    return postern_get_dma_in_slice(grant, name, grant->slice);
}

static inline const struct postern_irq* postern_get_irq(const struct postern_grant* grant, const char* name) {
    return postern_get_irq_in_slice(grant, name, grant->slice);
}

/* ---- memory ---- */

static inline size_t postern_page_(void) {
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Maps whole pages around [offset, offset + length) of fd and returns where offset is. */
static inline void* postern_map_(int fd, uint64_t offset, uint64_t length, int prot, int flags) {
    const uint64_t inside = offset & (postern_page_() - 1);
    const uint64_t size = inside + length;
    void* base;
    if (size < length || size > SIZE_MAX || (uint64_t)(off_t)offset != offset || (off_t)offset < 0) {
        errno = EOVERFLOW;
        return NULL;
    }
    base = mmap(NULL, (size_t)size, prot, flags, fd, (off_t)(offset - inside));
    return base == MAP_FAILED ? NULL : (char*)base + inside;
}

/* Maps a window; prot is PROT_READ and PROT_WRITE as wanted, within the window's access (else EACCES; ENODEV:
 * this window cannot be mapped). Returns its first byte, wherever in a page that lies. Access it with
 * postern_mmio_*() only. Undo with postern_unmap(first byte, window->length). */
static inline volatile void* postern_map_window(const struct postern_window* window, int prot) {
    if (!window) {
        errno = ENOENT;
        return NULL;
    }
    if (prot & ~(window->access)) {
        errno = EACCES;
        return NULL;
    }
    if (window->mmap_fd < 0) {
        errno = ENODEV;
        return NULL;
    }
    return postern_map_(window->mmap_fd, window->mmap_offset, window->length, prot, MAP_SHARED);
}

/* Maps all of the DMA memory, readable, writable and present. Its first byte is dma->iova to the device. Undo
 * with postern_unmap(first byte, dma->size). */
static inline void* postern_map_dma(const struct postern_dma* dma) {
    if (!dma) {
        errno = ENOENT;
        return NULL;
    }
    return postern_map_(dma->fd, 0, dma->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE);
}

/* Undoes postern_map_window() and postern_map_dma(); length as mapped. 0, or -1 with errno. */
static inline int postern_unmap(const volatile void* first, uint64_t length) {
    const uintptr_t inside = (uintptr_t)first & (postern_page_() - 1);
    return munmap((void*)((uintptr_t)first - inside), (size_t)(length + inside));
}

/* Reads size bytes at offset of a window with pread(2), for a window whose method is `pread`. size is one
 * access of 1, 2, 4 or 8 bytes if the device minds. 0, or -1 with errno (ERANGE: outside the window). */
static inline int postern_window_read(const struct postern_window* window, uint64_t offset, void* data,
                                      size_t size) {
    ssize_t got;
    if (!window || window->io_fd < 0) {
        errno = window ? ENODEV : ENOENT;
        return -1;
    }
    if (offset > window->length || size > window->length - offset) {
        errno = ERANGE;
        return -1;
    }
    got = pread(window->io_fd, data, size, (off_t)(window->io_offset + offset));
    if (got >= 0 && (size_t)got != size) errno = EIO;
    return got >= 0 && (size_t)got == size ? 0 : -1;
}

/* The same with pwrite(2). */
static inline int postern_window_write(const struct postern_window* window, uint64_t offset, const void* data,
                                       size_t size) {
    ssize_t put;
    if (!window || window->io_fd < 0) {
        errno = window ? ENODEV : ENOENT;
        return -1;
    }
    if (offset > window->length || size > window->length - offset) {
        errno = ERANGE;
        return -1;
    }
    put = pwrite(window->io_fd, data, size, (off_t)(window->io_offset + offset));
    if (put >= 0 && (size_t)put != size) errno = EIO;
    return put >= 0 && (size_t)put == size ? 0 : -1;
}

/* ---- ioctls whose arguments the profile rules ("args") ----
 *
 * The guard reads such an ioctl's argument block only where nobody can change it between its look and the
 * kernel's: in a memfd sealed against writing and shrinking, behind a read-only shared mapping that mseal(2)
 * keeps in place. postern_ioctl() makes that of a block of the caller's, at its first use.
 *
 * What mseal(2) has sealed can never be unmapped, not even by this program: every block that differs costs a
 * page or more until the process ends. So blocks are kept and found again by their content, and there are at
 * most POSTERN_BLOCKS of them in a program (and in each shared object that includes this header and hides
 * its symbols). Such ioctls belong into set-up.
 *
 * Needs Linux 6.10 and a seccomp filter that allows memfd_create, fcntl and mseal. */

#define POSTERN_BLOCKS 256
/* Bytes of the largest block. */
#define POSTERN_BLOCK_SIZE 65536

enum {
    POSTERN_NR_MSEAL_ = 462, /* of every architecture; headers of before 2024 do not name it */
    POSTERN_TRIES_ = 1000,

    /* linux/memfd.h and linux/fcntl.h: headers of libc show them to those who define _GNU_SOURCE. */
    POSTERN_MFD_FLAGS_ = 1 | 2 | 8, /* MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_NOEXEC_SEAL */
    POSTERN_F_ADD_SEALS_ = 1033,
    POSTERN_F_SEALS_ = 1 | 2 | 4 | 8, /* F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE */

    POSTERN_BLOCK_FREE_ = 0,
    POSTERN_BLOCK_BUSY_ = 1, /* somebody is making it */
    POSTERN_BLOCK_READY_ = 2
};

struct postern_block_ {
    int state;
    size_t size;
    const void* sealed;
};

/* One table a program, whichever of its files include this header. No lock: entries go from free to ready
 * and stay, so that any thread may look, and a fork in the middle loses one entry at most. */
__attribute__((weak)) struct postern_block_ postern_blocks_[POSTERN_BLOCKS];

/* Sealed memory with that content, or NULL with errno. Never undone: whoever calls this keeps it. */
static inline const void* postern_seal_(const void* block, size_t size) {
    const size_t room = (size + postern_page_() - 1) / postern_page_() * postern_page_();
    void* sealed = MAP_FAILED;
    int error = 0;
    /* MFD_NOEXEC_SEAL: some systems refuse other memfds (vm.memfd_noexec). Wherever there is mseal, it is. */
    const int fd = (int)syscall(SYS_memfd_create, "postern-block", POSTERN_MFD_FLAGS_);
    if (fd < 0) return NULL;
    /* Zeros follow it to the end of the page. */
    if (ftruncate(fd, (off_t)room) == 0 && pwrite(fd, block, size, 0) == (ssize_t)size &&
        fcntl(fd, POSTERN_F_ADD_SEALS_, POSTERN_F_SEALS_) == 0) {
        sealed = mmap(NULL, room, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    }
    error = errno;
    if (sealed != MAP_FAILED && syscall(POSTERN_NR_MSEAL_, sealed, room, 0UL) != 0) {
        error = errno;
        (void)munmap(sealed, room);
        sealed = MAP_FAILED;
    }
    (void)close(fd);
    if (sealed != MAP_FAILED) return sealed;
    errno = error;
    return NULL;
}

/* The kept block of that content, which is made if there is none. NULL: ENOSPC, all POSTERN_BLOCKS are taken;
 * ENOMEM and others, of making one. */
static inline const void* postern_sealed_block_(const void* block, size_t size) {
    size_t i;
    for (i = 0; i < POSTERN_BLOCKS; i++) {
        struct postern_block_* entry = &postern_blocks_[i];
        if (__atomic_load_n(&entry->state, __ATOMIC_ACQUIRE) != POSTERN_BLOCK_READY_) continue;
        if (entry->size == size && memcmp(entry->sealed, block, size) == 0) return entry->sealed;
    }
    /* Two threads may make the same block at once: a page is lost, nothing else. */
    for (i = 0; i < POSTERN_BLOCKS; i++) {
        struct postern_block_* entry = &postern_blocks_[i];
        int is_free = POSTERN_BLOCK_FREE_;
        if (!__atomic_compare_exchange_n(&entry->state, &is_free, POSTERN_BLOCK_BUSY_, 0, __ATOMIC_ACQUIRE,
                                         __ATOMIC_RELAXED)) {
            continue;
        }
        entry->size = size;
        entry->sealed = postern_seal_(block, size);
        __atomic_store_n(&entry->state, entry->sealed ? POSTERN_BLOCK_READY_ : POSTERN_BLOCK_FREE_,
                         __ATOMIC_RELEASE);
        return entry->sealed;
    }
    errno = ENOSPC;
    return NULL;
}

/* Some ioctls of iommufd do their work, then write into their block, and fail with EFAULT if that is sealed.
 * Called again, they fail because it is done already: with this errno. 0: not such an ioctl. */
static inline int postern_done_errno_(unsigned long request) {
    switch (request & 0xffffffffUL) {
        case 0x3b85: /* IOMMU_IOAS_MAP */
        case 0x3b8f: /* IOMMU_IOAS_MAP_FILE */
            return EEXIST;
        case 0x3b86: /* IOMMU_IOAS_UNMAP */
            return ENOENT;
        default:
            return 0;
    }
}

/* Would the caller of such an ioctl need what is written back? Where a mapping went that may go anywhere. */
static inline int postern_needs_answer_(unsigned long request, const void* block, size_t size) {
    const uint32_t fixed_iova = 1;
    uint32_t flags = 0;
    if (postern_done_errno_(request) != EEXIST) return 0;
    if (size < 8) return 0; /* the kernel's to refuse */
    memcpy(&flags, (const char*)block + 4, sizeof flags);
    return !(flags & fixed_iova);
}

/* ioctl(2), again while the guard cannot look at the block: its page is not in memory, or another thread is
 * changing this process's mappings. The driver's own EAGAIN looks the same and takes no longer. */
static inline int postern_try_ioctl_(int fd, unsigned long request, const void* block, size_t size) {
    const size_t page = postern_page_();
    int tries;
    int result = -1;
    for (tries = 0; tries < POSTERN_TRIES_; tries++) {
        size_t at;
        for (at = 0; at < size; at += page) (void)*((const volatile char*)block + at);
        result = ioctl(fd, request, block);
        if (result != -1 || errno != EAGAIN) return result;
        (void)sched_yield();
    }
    return result;
}

/* ioctl(fd, request, block) with a sealed copy of the size bytes at block: for every ioctl that only reads
 * its argument, and that the profile grants with "args" (others may be called so, too). Returns what ioctl(2)
 * returns. -1 with errno: EPERM, the guard refuses this argument; EAGAIN, it could not look at it in
 * POSTERN_TRIES_ tries; ENOSPC and ENOMEM, no room for another block, see above; E2BIG, a block above
 * POSTERN_BLOCK_SIZE; EINVAL, also a block of no bytes, and IOMMU_IOAS_MAP and MAP_FILE without
 * IOMMU_IOAS_MAP_FIXED_IOVA: nobody could say where the mapping went.
 *
 * IOMMU_IOAS_MAP, MAP_FILE and UNMAP do their work and fail with EFAULT, for they write into their block.
 * They are called once more, and what then says that it is done already counts as success; so do not change
 * the same IOVAs from two threads at once. (UNMAP of everything cannot be told, and stays EFAULT.)
 *
 * A kernel without mseal(2) has no ruled ioctls: there the copy is an ordinary one. Any thread may call this.
 */
static inline int postern_ioctl(int fd, unsigned long request, const void* block, size_t size) {
    const int done = postern_done_errno_(request);
    const void* sealed;
    int result;
    if (size == 0 || postern_needs_answer_(request, block, size)) {
        errno = EINVAL;
        return -1;
    }
    if (size > POSTERN_BLOCK_SIZE) {
        errno = E2BIG;
        return -1;
    }
    /* Of no bytes: only asks whether there is such a call. */
    if (syscall(POSTERN_NR_MSEAL_, (void*)0, (size_t)0, 0UL) != 0 && errno == ENOSYS) {
        int error;
        void* copy = malloc(size);
        if (!copy) return -1;
        memcpy(copy, block, size);
        result = ioctl(fd, request, copy);
        error = errno;
        free(copy);
        errno = error;
        return result;
    }
    sealed = postern_sealed_block_(block, size);
    if (!sealed) return -1;
    result = postern_try_ioctl_(fd, request, sealed, size);
    if (result != -1 || errno != EFAULT || !done) return result;
    result = postern_try_ioctl_(fd, request, sealed, size);
    return result == -1 && errno == done ? 0 : result;
}

/* ---- memory of the client's own for the device (profile key "dma_map") ----
 *
 * Each mapping is an ioctl with sealed arguments, see above: set-up, not a hot loop. What is mapped is
 * pinned, counts against RLIMIT_MEMLOCK, and is unmapped by the owner when the client has ended. 0, or -1
 * with errno: ENODEV, the grant has no such part; EPERM, not wholly inside the part, or more than its access;
 * EEXIST, something is mapped there; EINVAL, not aligned; ENOENT, nothing is mapped there; those of
 * postern_ioctl(). linux/iommufd.h. */

enum {
    POSTERN_IOAS_MAP_ = 0x3b85,
    POSTERN_IOAS_UNMAP_ = 0x3b86,
    POSTERN_IOAS_MAP_FILE_ = 0x3b8f,
    POSTERN_IOAS_FIXED_IOVA_ = 1,
    POSTERN_IOAS_WRITEABLE_ = 2,
    POSTERN_IOAS_READABLE_ = 4
};

/* What the kernel is given: struct iommu_ioas_map, or iommu_ioas_map_file. */
struct postern_ioas_map_ {
    uint32_t size, flags, ioas;
    int32_t fd;
    uint64_t start, length, iova;
};

static inline int postern_dma_map_(const struct postern_grant* grant, unsigned long request, int fd,
                                   uint64_t start, uint64_t length, uint64_t iova, int access) {
    struct postern_ioas_map_ block;
    if (!grant || grant->dma_map.fd < 0) {
        errno = ENODEV;
        return -1;
    }
    memset(&block, 0, sizeof block);
    block.size = sizeof block;
    block.flags = (uint32_t)POSTERN_IOAS_FIXED_IOVA_ |
                  (access & PROT_READ ? (uint32_t)POSTERN_IOAS_READABLE_ : 0U) |
                  (access & PROT_WRITE ? (uint32_t)POSTERN_IOAS_WRITEABLE_ : 0U);
    block.ioas = grant->dma_map.ioas;
    block.fd = fd;
    block.start = start;
    block.length = length;
    block.iova = iova;
    return postern_ioctl(grant->dma_map.fd, request, &block, sizeof block);
}

/* Maps length bytes at address, which stay the caller's, at iova. access is the device's: PROT_READ,
 * PROT_WRITE. */
static inline int postern_dma_map_memory(const struct postern_grant* grant, void* address, uint64_t length,
                                         uint64_t iova, int access) {
    return postern_dma_map_(grant, POSTERN_IOAS_MAP_, 0, (uint64_t)(uintptr_t)address, length, iova, access);
}

/* The same of a memfd's or a dma-buf's bytes from start on (Linux 6.13; dma-bufs of BARs: 7.3 does). access
 * is PROT_READ: the device could write past seals, and PROT_WRITE is refused with EPERM. */
static inline int postern_dma_map_file(const struct postern_grant* grant, int fd, uint64_t start,
                                       uint64_t length, uint64_t iova, int access) {
    return postern_dma_map_(grant, POSTERN_IOAS_MAP_FILE_, fd, start, length, iova, access);
}

/* Unmaps what lies in the range; mappings are unmapped as they were made, or not at all. */
static inline int postern_dma_unmap(const struct postern_grant* grant, uint64_t iova, uint64_t length) {
    struct {
        uint32_t size, ioas;
        uint64_t iova, length;
    } block;
    if (!grant || grant->dma_map.fd < 0) {
        errno = ENODEV;
        return -1;
    }
    memset(&block, 0, sizeof block);
    block.size = sizeof block;
    block.ioas = grant->dma_map.ioas;
    block.iova = iova;
    block.length = length;
    return postern_ioctl(grant->dma_map.fd, POSTERN_IOAS_UNMAP_, &block, sizeof block);
}

/* ---- giving up rights, for good ----
 *
 * Whoever holds a guarded fd can narrow what may be done with it: for this open file, so for all its
 * duplicates in all processes, and nobody gets it back. What is mapped stays mapped as it is, so unmap first.
 * Giving up what one does not have, or no longer has, is fine. 0, or -1 with errno: ENOTTY, the fd is not a
 * guarded one (with others, the answer is the driver's); EINVAL, the guard knows no such request. */

/* The request to the guard, and what its top byte asks for; bpf/policy.h has the same. */
#define POSTERN_IOC_RESTRICT_ 0xf950UL
enum {
    POSTERN_GIVE_UP_IOCTL_ = 1,
    POSTERN_GIVE_UP_IOCTLS_ = 2,
    POSTERN_GIVE_UP_WINDOW_ = 3,
    POSTERN_GIVE_UP_WINDOWS_ = 4,
    POSTERN_GIVE_UP_FORWARD_ = 5
};

static inline int postern_restrict_(int fd, unsigned int what, uint64_t which) {
    if (ioctl(fd, POSTERN_IOC_RESTRICT_, (uint64_t)what << 56 | which) != -1) {
        errno = ENOTTY;
        return -1;
    }
    return errno == EALREADY ? 0 : -1;
}

/* An ioctl, by its number. */
static inline int postern_restrict_ioctl(int fd, unsigned long request) {
    return postern_restrict_(fd, POSTERN_GIVE_UP_IOCTL_, (uint32_t)request);
}

/* All ioctls (but giving up more). */
static inline int postern_restrict_ioctls(int fd) {
    return postern_restrict_(fd, POSTERN_GIVE_UP_IOCTLS_, 0);
}

/* Of one window of the grant's device: POSTERN_READ, POSTERN_WRITE, POSTERN_MMAP, POSTERN_PREAD, or several.
 * Other windows that overlap it keep what they have. In a grant without a device fd it is the window's own
 * dma-buf. ENOENT: window is NULL; ENODEV: the device fd has no such window (it is reached by a dma-buf
 * alone, whose fd would have to be closed, or nothing is guarded). */
static inline int postern_restrict_window(const struct postern_grant* grant,
                                          const struct postern_window* window, int lose) {
    if (!window || window->guard < 0) {
        errno = window ? ENODEV : ENOENT;
        return -1;
    }
    if (lose & ~(POSTERN_READ | POSTERN_WRITE | POSTERN_MMAP | POSTERN_PREAD)) {
        errno = EINVAL;
        return -1;
    }
    return postern_restrict_(grant->device_fd >= 0 ? grant->device_fd : window->mmap_fd,
                             POSTERN_GIVE_UP_WINDOW_, (uint64_t)window->guard << 8 | (uint64_t)lose);
}

/* Of all windows that are reached by this fd. */
static inline int postern_restrict_windows(int fd, int lose) {
    if (lose & ~(POSTERN_READ | POSTERN_WRITE | POSTERN_MMAP | POSTERN_PREAD)) {
        errno = EINVAL;
        return -1;
    }
    return postern_restrict_(fd, POSTERN_GIVE_UP_WINDOWS_, (uint64_t)lose);
}

/* All writing. */
static inline int postern_restrict_write(int fd) {
    return postern_restrict_windows(fd, POSTERN_WRITE);
}

/* Handing it to another process (SCM_RIGHTS, pidfd_getfd); children still inherit it. */
static inline int postern_restrict_forward(int fd) {
    return postern_restrict_(fd, POSTERN_GIVE_UP_FORWARD_, 0);
}

/* ---- interrupts ---- */

/* Waits until the interrupt has come since the last wait, and says how often in *count (NULL: not wanted).
 * One read(2) of the eventfd. 0, or -1 with errno; EINTR after a signal, so that a timer can end it. */
static inline int postern_irq_wait(const struct postern_irq* irq, uint64_t* count) {
    uint64_t value = 0;
    if (!irq) {
        errno = ENOENT;
        return -1;
    }
    while (read(irq->fd, &value, sizeof value) != (ssize_t)sizeof value) {
        struct pollfd ready;
        if (errno != EAGAIN) return -1;
        ready.fd = irq->fd;
        ready.events = POLLIN;
        ready.revents = 0;
        if (poll(&ready, 1, -1) < 0) return -1;
    }
    if (count) *count = value;
    return 0;
}

/* ---- ordering: memory that the device reads and writes by DMA, and registers ---- */

/* Earlier stores to DMA memory are visible to the device before later ones (and before a doorbell). */
static inline void postern_dma_wmb(void) {
#if defined(__aarch64__)
    __asm__ __volatile__("dmb oshst" ::: "memory");
#elif defined(__x86_64__) || defined(__i386__)
    __atomic_signal_fence(__ATOMIC_SEQ_CST); /* stores stay in order; the compiler must keep it too */
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

/* Earlier loads from DMA memory (an index, a flag) are done before later ones (the data it announces). */
static inline void postern_dma_rmb(void) {
#if defined(__aarch64__)
    __asm__ __volatile__("dmb oshld" ::: "memory");
#elif defined(__x86_64__) || defined(__i386__)
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

/* Earlier stores before later loads: for "publish, then look whether the device sleeps". */
static inline void postern_dma_mb(void) {
#if defined(__aarch64__)
    __asm__ __volatile__("dmb osh" ::: "memory");
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

/* Registers are not cached; elsewhere than on x86 and arm64 the order between them and memory needs more. */
static inline void postern_mmio_before_write_(void) {
#if defined(__riscv)
    __asm__ __volatile__("fence w,ow" ::: "memory");
#else
    postern_dma_wmb();
#endif
}

static inline void postern_mmio_after_read_(void) {
#if defined(__riscv)
    __asm__ __volatile__("fence i,ir" ::: "memory");
#else
    postern_dma_rmb();
#endif
}

/* One access of exactly that width, little endian as PCI is. A write comes after every earlier store to DMA
 * memory; a read is done before every later load. */
static inline uint8_t postern_mmio_read8(const volatile void* address) {
    const uint8_t value = *(const volatile uint8_t*)address;
    postern_mmio_after_read_();
    return value;
}

static inline uint16_t postern_mmio_read16(const volatile void* address) {
    const uint16_t value = le16toh(*(const volatile uint16_t*)address);
    postern_mmio_after_read_();
    return value;
}

static inline uint32_t postern_mmio_read32(const volatile void* address) {
    const uint32_t value = le32toh(*(const volatile uint32_t*)address);
    postern_mmio_after_read_();
    return value;
}

/* Two accesses on a 32-bit machine. */
static inline uint64_t postern_mmio_read64(const volatile void* address) {
    const uint64_t value = le64toh(*(const volatile uint64_t*)address);
    postern_mmio_after_read_();
    return value;
}

static inline void postern_mmio_write8(volatile void* address, uint8_t value) {
    postern_mmio_before_write_();
    *(volatile uint8_t*)address = value;
}

static inline void postern_mmio_write16(volatile void* address, uint16_t value) {
    postern_mmio_before_write_();
    *(volatile uint16_t*)address = htole16(value);
}

static inline void postern_mmio_write32(volatile void* address, uint32_t value) {
    postern_mmio_before_write_();
    *(volatile uint32_t*)address = htole32(value);
}

static inline void postern_mmio_write64(volatile void* address, uint64_t value) {
    postern_mmio_before_write_();
    *(volatile uint64_t*)address = htole64(value);
}

/* NOLINTEND(modernize-use-nullptr) */

#endif
