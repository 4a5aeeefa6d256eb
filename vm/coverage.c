// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plugin for QEMU that counts which instructions of modules a guest runs.
 *
 * QEMU calls it for each block of code that it translates (docs/devel/tcg-plugins.rst). For each
 * instruction that lies where the kernel puts modules it adds an entry to a file, and QEMU then
 * counts in that entry. The file is mapped, so that all is in it however QEMU ends. An entry holds
 * the instruction's bytes too: memory of a module that is gone is used again, and other bytes at
 * the same address are another instruction.
 *
 * harness/qemu/counts.py makes and reads the file. It is built without the C library's headers,
 * which not every tree with a compiler has. QEMU has loaded the library itself.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))
#define WEAK __attribute__((weak))

/* What is used of the C library, with the numbers of Linux on x86. */
int open(const char *path, int flags, ...);
void *mmap(void *where, size_t length, int protection, int flags, int file, long offset);
void *calloc(size_t count, size_t size);
int strncmp(const char *one, const char *other, size_t length);
void *memcpy(void *to, const void *from, size_t length);
int memcmp(const void *one, const void *other, size_t length);

#define O_RDWR 2
#define PROT_READ_WRITE 3
#define MAP_SHARED 1
#define MAP_FAILED ((void *)-1)

/* What is used of QEMU: docs/devel/tcg-plugins.rst, versions 1 and later of the interface. */
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;

struct qemu_info {
	const char *target_name;
	struct {
		int min;
		int cur;
	} version;
	/* More follows, which nobody asks for here. */
};

enum { ADD_U64 = 0 }; /* enum qemu_plugin_op */
enum { NO_REGISTERS = 0 }; /* enum qemu_plugin_cb_flags */

typedef void (*translated_t)(qemu_plugin_id_t id, struct qemu_plugin_tb *block);
typedef void (*ran_t)(unsigned int cpu, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, translated_t call);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, ran_t call, int flags,
					    void *data);
/* Version 1 only; it costs less than a call. */
WEAK void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn, int what,
						     void *counter, uint64_t number);
/* Up to version 2 it takes the instruction alone and returns where its bytes are. */
uintptr_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t length);

EXPORT int qemu_plugin_version = API_VERSION;

/*
 * The module area of x86-64 ends here, and begins here or, where the kernel can be placed at
 * random, 512 MiB above (MODULES_VADDR in arch/x86/include/asm/pgtable_64_types.h). All of the
 * kernel's own code is below.
 */
#define FIRST 0xffffffffa0000000
#define LAST 0xfffffffffeffffff

/* harness/qemu/counts.py has the same. */
#define BYTES 15 /* the longest instruction */
#define ENTRIES (1 << 20)
#define WORDS "out="

struct entry {
	uint64_t address;
	uint64_t count;
	uint8_t length;
	uint8_t bytes[BYTES];
};

struct counts {
	uint64_t used;
	uint64_t lost; /* instructions for which there was no room */
	uint64_t unused[2];
	struct entry entries[ENTRIES];
};

static struct counts *counts;
static uint32_t *places; /* a hash table of entries, by their number from 1 on */
static bool locked; /* several virtual CPUs translate at the same time */
static bool copies; /* QEMU copies an instruction's bytes (from version 3 on) */

static struct entry *entry_of(uint64_t address, const uint8_t *bytes, size_t length)
{
	uint64_t hash = address * 0x9e3779b97f4a7c15;
	struct entry *entry;
	size_t index;

	for (index = 0; index < length; index++)
		hash = (hash ^ bytes[index]) * 0x100000001b3;
	for (index = hash >> 32;; index++) {
		uint32_t *place = &places[index % (2 * ENTRIES)];

		if (!*place) {
			if (counts->used == ENTRIES)
				return NULL;
			entry = &counts->entries[counts->used];
			entry->address = address;
			entry->length = length;
			memcpy(entry->bytes, bytes, length);
			*place = ++counts->used;
			return entry;
		}
		entry = &counts->entries[*place - 1];
		if (entry->address == address && entry->length == length &&
		    !memcmp(entry->bytes, bytes, length))
			return entry;
	}
}

static void ran(unsigned int cpu, void *entry)
{
	__atomic_fetch_add(&((struct entry *)entry)->count, 1, __ATOMIC_RELAXED);
}

static void count(struct qemu_plugin_insn *insn)
{
	uint64_t address = qemu_plugin_insn_vaddr(insn);
	size_t length = qemu_plugin_insn_size(insn);
	uint8_t copy[BYTES];
	const uint8_t *bytes = copy;
	struct entry *entry;

	if (address < FIRST || address > LAST || length > BYTES)
		return;
	if (copies)
		qemu_plugin_insn_data(insn, copy, length);
	else
		bytes = (const uint8_t *)qemu_plugin_insn_data(insn, NULL, 0);
	while (__atomic_test_and_set(&locked, __ATOMIC_ACQUIRE))
		;
	entry = entry_of(address, bytes, length);
	if (!entry)
		counts->lost++;
	__atomic_clear(&locked, __ATOMIC_RELEASE);
	if (entry && qemu_plugin_register_vcpu_insn_exec_inline)
		qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD_U64, &entry->count, 1);
	else if (entry)
		qemu_plugin_register_vcpu_insn_exec_cb(insn, ran, NO_REGISTERS, entry);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
	size_t index;

	for (index = 0; index < qemu_plugin_tb_n_insns(block); index++)
		count(qemu_plugin_tb_get_insn(block, index));
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc,
			       char **argv)
{
	int file;

	if (argc != 1 || strncmp(argv[0], WORDS, sizeof(WORDS) - 1))
		return -1;
	file = open(argv[0] + sizeof(WORDS) - 1, O_RDWR);
	if (file < 0)
		return -1;
	counts = mmap(NULL, sizeof(*counts), PROT_READ_WRITE, MAP_SHARED, file, 0);
	places = calloc(2 * ENTRIES, sizeof(*places));
	if (counts == MAP_FAILED || !places)
		return -1;
	copies = info->version.cur >= 3;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
