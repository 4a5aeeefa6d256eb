// SPDX-License-Identifier: GPL-2.0-only
/*
 * A module that claims to be of the kernel's own tree, so that loading it sets
 * no taint. It has a cache that the kernel merges with others of that size. It
 * leaves behind what "leave" names; with "held" it cannot be unloaded.
 */
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/slab.h>
#include <linux/string.h>

static char *leave = "";
module_param(leave, charp, 0);

static bool held;
module_param(held, bool, 0);

static struct kmem_cache *cache;
static struct proc_dir_entry *entry;

static int __init planted_quiet_init(void)
{
	/* No flag and no constructor: it is merged with kmalloc-192 or another one. */
	cache = kmem_cache_create("planted_quiet", 192, 0, 0, NULL);
	if (!cache)
		return -ENOMEM;
	entry = proc_mkdir("planted_quiet", NULL);
	if (!entry) {
		kmem_cache_destroy(cache);
		return -ENOMEM;
	}
	if (held)
		__module_get(THIS_MODULE);
	return 0;
}

static void __exit planted_quiet_exit(void)
{
	if (strcmp(leave, "proc"))
		proc_remove(entry);
	if (strcmp(leave, "cache"))
		kmem_cache_destroy(cache);
}

module_init(planted_quiet_init);
module_exit(planted_quiet_exit);

MODULE_DESCRIPTION("Leaves something behind without setting a taint");
MODULE_INFO(intree, "Y");
MODULE_LICENSE("GPL");
