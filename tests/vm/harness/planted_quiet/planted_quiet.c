// SPDX-License-Identifier: GPL-2.0-only
/*
 * A module that claims to be of the kernel's own tree, so that loading it sets
 * no taint. It has a cache that the kernel merges with others of that size. It
 * leaves behind what "leave" names; with "held" it cannot be unloaded, with
 * "fails" its init fails at the end, with "hides" it takes itself from the list.
 * With "helper" it begins a program, which goes on when the module is gone.
 */
#include <linux/debugfs.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/ioport.h>
#include <linux/kmod.h>
#include <linux/kobject.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/proc_fs.h>
#include <linux/security.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/umh.h>
#include <net/net_namespace.h>

/* Ranges of the PCI host bridge that no device has. */
#define MEMORY	0xf0000000
#define PORTS	0x3000
#define SIZE	16

/* From 6.14 on kthread_create_worker() makes one that does not run yet. */
#ifdef kthread_run_worker
#define begin_worker kthread_run_worker
#else
#define begin_worker kthread_create_worker
#endif

static char *leave = "";
module_param(leave, charp, 0);

static bool held;
module_param(held, bool, 0);

static bool helper;
module_param(helper, bool, 0);

static bool fails;
module_param(fails, bool, 0);

static bool hides;
module_param(hides, bool, 0);

static struct kmem_cache *cache;
static struct proc_dir_entry *entry, *net_entry;
static struct platform_device *device;
static struct device *root;
static struct kobject *top, *below;
static struct dentry *folder, *secured;
static struct kthread_worker *worker;
static struct resource *memory, *ports;
static char *name;		/* of the regions; not in the module, so that it can be listed */

static void give_back(void)
{
	if (strcmp(leave, "proc"))
		proc_remove(entry);
	if (strcmp(leave, "net"))
		proc_remove(net_entry);
	if (strcmp(leave, "device"))
		platform_device_unregister(device);
	if (strcmp(leave, "root"))
		root_device_unregister(root);
	if (strcmp(leave, "top"))
		kobject_put(top);
	if (strcmp(leave, "below"))
		kobject_put(below);
	if (strcmp(leave, "debugfs"))
		debugfs_remove(folder);
	if (strcmp(leave, "securityfs"))
		securityfs_remove(secured);
	/* Named as one of the kernel's own, and in none of this module's code. */
	if (!IS_ERR_OR_NULL(worker) && strcmp(leave, "worker"))
		kthread_destroy_worker(worker);
	if (memory && strcmp(leave, "memory"))
		release_mem_region(MEMORY, SIZE);
	if (ports && strcmp(leave, "ports"))
		release_region(PORTS, SIZE);
	if (strcmp(leave, "memory") && strcmp(leave, "ports"))
		kfree(name);
	if (strcmp(leave, "cache"))
		kmem_cache_destroy(cache);
}

static int __init planted_quiet_init(void)
{
	/* No flag and no constructor: it is merged with kmalloc-192 or another one. */
	cache = kmem_cache_create("planted_quiet", 192, 0, 0, NULL);
	if (!cache)
		return -ENOMEM;
	entry = proc_mkdir("planted_quiet", NULL);
	net_entry = proc_mkdir("planted_quiet", init_net.proc_net);
	device = platform_device_register_simple("planted_quiet", PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(device))
		device = NULL;
	root = root_device_register("planted_root");
	if (IS_ERR(root))
		root = NULL;
	top = kobject_create_and_add("planted_top", NULL);
	below = kobject_create_and_add("planted_below", firmware_kobj);
	folder = debugfs_create_dir("planted_folder", arch_debugfs_dir);
	secured = securityfs_create_dir("planted_secured", NULL);
	worker = begin_worker(0, "kworker/u9:9");
	name = kstrdup("planted_quiet", GFP_KERNEL);
	memory = request_mem_region(MEMORY, SIZE, name);
	ports = request_region(PORTS, SIZE, name);
	if (!entry || !net_entry || !device || !root || !top || !below || IS_ERR(folder) ||
	    IS_ERR(secured) || IS_ERR(worker) || !name || !memory || !ports) {
		leave = "";
		give_back();
		return -EBUSY;
	}
	if (fails) {
		give_back();
		return -EINVAL;
	}
	if (helper) {
		char *argv[] = { "/bin/sleep", "1000", NULL }, *envp[] = { "HOME=/", NULL };

		call_usermodehelper(argv[0], argv, envp, UMH_WAIT_EXEC);
	}
	if (held)
		__module_get(THIS_MODULE);
	if (hides)
		list_del_init(&THIS_MODULE->list);
	return 0;
}

static void __exit planted_quiet_exit(void)
{
	give_back();
}

module_init(planted_quiet_init);
module_exit(planted_quiet_exit);

MODULE_DESCRIPTION("Leaves something behind without setting a taint");
MODULE_INFO(intree, "Y");
MODULE_LICENSE("GPL");
