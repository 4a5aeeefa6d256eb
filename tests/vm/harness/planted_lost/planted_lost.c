// SPDX-License-Identifier: GPL-2.0-only
/*
 * Takes memory of one kind (what=NAME) at one place (where=NAME), and gives it back or not (take=0).
 * how=forgotten: nobody gives it back; overwritten: the pointer to it is lost; outer: only the
 * structure that has the pointer is freed.
 */

#include <linux/debugfs.h>
#include <linux/dma-mapping.h>
#include <linux/dmapool.h>
#include <linux/etherdevice.h>
#include <linux/err.h>
#include <linux/firmware.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/net.h>
#include <linux/netdevice.h>
#include <linux/percpu.h>
#include <linux/platform_device.h>
#include <linux/rcupdate.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/trace.h>
#include <linux/version.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>
#include <net/net_namespace.h>

static char *what = "nothing";
module_param(what, charp, 0444);
static char *where = "init";
module_param(where, charp, 0444);
static char *how = "forgotten";
module_param(how, charp, 0444);
static bool take = true;
module_param(take, bool, 0444);

static struct platform_device *planted_device;

/* -- what can be lost: one that takes it, one that gives it back -- */

static void *nothing_get(void) { return &planted_device; }
static void nothing_put(void *it) { }

static void *kmalloc_get(void) { return kmalloc(100, GFP_KERNEL); }
static void *kzalloc_get(void) { return kzalloc(300, GFP_KERNEL); }
static void *large_get(void) { return kmalloc(100000, GFP_KERNEL); }
static void *atomic_get(void) { return kmalloc(64, GFP_ATOMIC); }
static void *kstrdup_get(void) { return kstrdup("abc", GFP_KERNEL); }
static void *kmemdup_get(void) { return kmemdup("0123456789abcdef", 16, GFP_KERNEL); }
static void *kasprintf_get(void) { return kasprintf(GFP_KERNEL, "planted-%s-%d", what, 1); }
static void *krealloc_get(void)
{
	return krealloc(kmalloc(40, GFP_KERNEL), 400, GFP_KERNEL);
}

static void kfree_put(void *it) { kfree(it); }

static void *kvmalloc_get(void) { return kvmalloc(8 << 20, GFP_KERNEL); }
static void kvfree_put(void *it) { kvfree(it); }

static void *vmalloc_get(void) { return vmalloc(20000); }
static void vfree_put(void *it) { vfree(it); }

static void *pages_get(void) { return alloc_pages(GFP_KERNEL, 2); }
static void pages_put(void *it) { __free_pages(it, 2); }

static void *onepage_get(void) { return (void *)__get_free_page(GFP_KERNEL); }
static void onepage_put(void *it) { free_page((unsigned long)it); }

/* 64 MiB */
static struct page *planted_heap[64];

static void *heap_get(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(planted_heap); i++)
		planted_heap[i] = alloc_pages(GFP_KERNEL, 8);
	return planted_heap[0];
}

static void heap_put(void *it)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(planted_heap); i++)
		if (planted_heap[i])
			__free_pages(planted_heap[i], 8);
}

static void *percpu_get(void) { return (void __force *)__alloc_percpu(48, 8); }
static void percpu_put(void *it) { free_percpu((void __percpu __force *)it); }

static struct kmem_cache *planted_cache;

static void *cache_get(void)
{
	return kmem_cache_alloc(planted_cache, GFP_KERNEL);
}

static void cache_put(void *it) { kmem_cache_free(planted_cache, it); }

static void *skb_get_one(void) { return alloc_skb(200, GFP_KERNEL); }
static void skb_put_one(void *it) { kfree_skb(it); }

/* From 7.0 on the kernel warns of a queue that says neither WQ_PERCPU, new in 6.18, nor unbound. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 18, 0)
#define QUEUE WQ_PERCPU
#else
#define QUEUE 0
#endif
static void *workqueue_get(void) { return alloc_workqueue("planted_queue", QUEUE, 0); }
static void workqueue_put(void *it) { destroy_workqueue(it); }

static void *bound_get(void) { return alloc_ordered_workqueue("planted_ordered", 0); }

static dma_addr_t planted_bus;

static void *dma_get(void)
{
	return dma_alloc_coherent(&planted_device->dev, 5000, &planted_bus, GFP_KERNEL);
}

static void dma_put(void *it)
{
	dma_free_coherent(&planted_device->dev, 5000, it, planted_bus);
}

static void *pool_get(void)
{
	return dma_pool_create("planted_pool", &planted_device->dev, 64, 8, 0);
}

static void pool_put(void *it) { dma_pool_destroy(it); }

static void *socket_get(void)
{
	struct socket *it;

	return sock_create_kern(&init_net, AF_INET, SOCK_DGRAM, IPPROTO_UDP, &it) ? NULL : it;
}

static void socket_put(void *it) { sock_release(it); }

static void *opened(const char *path)
{
	struct file *it = filp_open(path, O_RDONLY, 0);

	return IS_ERR(it) ? NULL : it;
}

static void *file_get(void) { return opened("/etc/fstab"); }
/* Of most of its files /proc has a list of who has opened them. */
static void *listed_get(void) { return opened("/proc/iomem"); }

static void file_put(void *it) { filp_close(it, NULL); }

static void *exact_get(void) { return alloc_pages_exact(3 * PAGE_SIZE, GFP_KERNEL); }
static void exact_put(void *it) { free_pages_exact(it, 3 * PAGE_SIZE); }

/* What a device of the kernel's has in sysfs, where no list looks. */
static struct kobject *planted_place(void) { return &init_net.loopback_dev->dev.kobj; }

static void *link_get(void)
{
	return sysfs_create_link(planted_place(), kernel_kobj, "planted_link") ? NULL : kernel_kobj;
}

static void link_put(void *it) { sysfs_remove_link(planted_place(), "planted_link"); }

static void *folder_get(void) { return kobject_create_and_add("planted_folder", planted_place()); }
static void folder_put(void *it) { kobject_put(it); }

static ssize_t planted_show(struct device *device, struct device_attribute *attribute, char *text)
{
	return 0;
}

static DEVICE_ATTR(planted_attribute, 0444, planted_show, NULL);
static struct attribute *planted_attributes[] = { &dev_attr_planted_attribute.attr, NULL };
static const struct attribute_group planted_group = {
	.name = "planted_group", .attrs = planted_attributes,
};

static void *group_get(void)
{
	return sysfs_create_group(planted_place(), &planted_group) ? NULL : planted_place();
}

static void group_put(void *it) { sysfs_remove_group(planted_place(), &planted_group); }

static void *mount_get(void)
{
	struct file_system_type *type = get_fs_type("tmpfs");
	struct vfsmount *it;

	if (!type)
		return NULL;
	it = kern_mount(type);
	module_put(type->owner);
	return IS_ERR(it) ? NULL : it;
}

static void mount_put(void *it) { kern_unmount(it); }

static void *instance_get(void)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	return trace_array_get_by_name("planted_instance", NULL);
#else
	return trace_array_get_by_name("planted_instance");
#endif
}

static void instance_put(void *it)
{
	trace_array_put(it);
	trace_array_destroy(it);
}

/* -- what looks alike and is right, so that there is no way to forget it -- */

struct planted_object {
	struct planted_object *next;
	struct rcu_head rcu;
	char text[80];
};

static void *rcu_get(void) { return kzalloc(sizeof(struct planted_object), GFP_KERNEL); }
static void rcu_put(void *it) { kfree_rcu((struct planted_object *)it, rcu); }

static void called_back(struct rcu_head *rcu)
{
	kfree(container_of(rcu, struct planted_object, rcu));
}

static void callback_put(void *it)
{
	call_rcu(&((struct planted_object *)it)->rcu, called_back);
	rcu_barrier();
}

static void *many_get(void)
{
	struct planted_object *first = NULL;
	int i;

	for (i = 0; i < 300; i++) {
		struct planted_object *it = kzalloc(sizeof(*it), GFP_KERNEL);

		if (!it)
			break;
		it->next = first;
		first = it;
	}
	return first;
}

static void many_put(void *it)
{
	struct planted_object *one = it;

	while (one) {
		struct planted_object *next = one->next;

		kfree_rcu(one, rcu);
		one = next;
	}
}

static void *devm_get(void) { return devm_kzalloc(&planted_device->dev, 200, GFP_KERNEL); }

static const struct net_device_ops planted_ops = { };

static void *netdevice_get(void)
{
	struct net_device *it = alloc_etherdev(64);

	if (!it)
		return NULL;
	it->netdev_ops = &planted_ops;
	eth_hw_addr_random(it);
	if (register_netdev(it)) {
		free_netdev(it);
		return NULL;
	}
	return it;
}

static void netdevice_put(void *it)
{
	unregister_netdev(it);
	free_netdev(it);
}

static const struct file_operations planted_file = { };

static void *debugfs_get(void)
{
	struct dentry *it = debugfs_create_dir("planted_lost", NULL);

	debugfs_create_file("file", 0400, it, NULL, &planted_file);
	return it;
}

static void debugfs_put(void *it) { debugfs_remove(it); }

/* So much that the kernel keeps some of the pages when it is freed. */
static void __percpu *planted_counters[300];

static void *percpus_get(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(planted_counters); i++)
		planted_counters[i] = __alloc_percpu(8192, 64);
	return planted_counters;
}

static void percpus_put(void *it)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(planted_counters); i++)
		free_percpu(planted_counters[i]);
}

static void *firmware_get(void)
{
	const struct firmware *it;

	return request_firmware(&it, "planted.bin", &planted_device->dev) ? NULL : (void *)it;
}

static void firmware_put(void *it) { release_firmware(it); }

#define SAME_PUT(name, put) { #name, name##_get, put }

static const struct {
	const char *name;
	void *(*get)(void);
	void (*put)(void *it);
} kinds[] = {
	SAME_PUT(nothing, nothing_put),
	SAME_PUT(kmalloc, kfree_put), SAME_PUT(kzalloc, kfree_put), SAME_PUT(large, kfree_put),
	SAME_PUT(atomic, kfree_put),
	SAME_PUT(kstrdup, kfree_put), SAME_PUT(kmemdup, kfree_put),
	SAME_PUT(kasprintf, kfree_put), SAME_PUT(krealloc, kfree_put),
	SAME_PUT(kvmalloc, kvfree_put), SAME_PUT(vmalloc, vfree_put),
	SAME_PUT(pages, pages_put), SAME_PUT(onepage, onepage_put),
	SAME_PUT(heap, heap_put), SAME_PUT(percpu, percpu_put), SAME_PUT(cache, cache_put),
	{ "skb", skb_get_one, skb_put_one }, SAME_PUT(workqueue, workqueue_put),
	SAME_PUT(bound, workqueue_put),
	SAME_PUT(dma, dma_put), SAME_PUT(pool, pool_put),
	SAME_PUT(rcu, rcu_put), SAME_PUT(devm, nothing_put),
	SAME_PUT(socket, socket_put), SAME_PUT(file, file_put),
	{ "listed", listed_get, file_put },
	SAME_PUT(exact, exact_put), SAME_PUT(percpus, percpus_put),
	SAME_PUT(link, link_put), SAME_PUT(folder, folder_put), SAME_PUT(group, group_put),
	SAME_PUT(mount, mount_put), SAME_PUT(instance, instance_put),
	{ "callback", rcu_get, callback_put }, SAME_PUT(many, many_put),
	SAME_PUT(netdevice, netdevice_put), SAME_PUT(debugfs, debugfs_put),
	SAME_PUT(firmware, firmware_put),
};

struct planted_outer {
	long number;
	void *inner;
};

static int chosen;
static struct planted_outer *planted_outer;
static void *planted_page; /* given to user space by mmap() */

static void put(void)
{
	if (!planted_outer)
		return;
	if (take && planted_outer->inner)
		kinds[chosen].put(planted_outer->inner);
	kfree(planted_outer);
	planted_outer = NULL;
}

static int get(void)
{
	int times = strcmp(how, "overwritten") ? 1 : 2;

	put();
	planted_outer = kzalloc(sizeof(*planted_outer), GFP_KERNEL);
	if (!planted_outer)
		return -ENOMEM;
	while (times--)
		planted_outer->inner = kinds[chosen].get();
	return planted_outer->inner ? 0 : -ENOMEM;
}

static int get_at(const char *place)
{
	return strcmp(where, place) ? 0 : get();
}

static int planted_open(struct inode *inode, struct file *file)
{
	return get_at("open");
}

static ssize_t planted_write(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	int failed = get_at("write");

	return failed ?: size;
}

static long planted_ioctl(struct file *file, unsigned int number, unsigned long argument)
{
	return get_at("ioctl");
}

static int planted_mmap(struct file *file, struct vm_area_struct *area)
{
	if (!planted_page)
		planted_page = (void *)get_zeroed_page(GFP_KERNEL);
	if (!planted_page)
		return -ENOMEM;
	return vm_insert_page(area, area->vm_start, virt_to_page(planted_page));
}

static const struct file_operations planted_files = {
	.owner = THIS_MODULE,
	.open = planted_open,
	.write = planted_write,
	.unlocked_ioctl = planted_ioctl,
	.mmap = planted_mmap,
};

static struct miscdevice planted_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "planted_lost",
	.fops = &planted_files,
};

static int __init planted_lost_init(void)
{
	int failed;

	for (chosen = 0; chosen < ARRAY_SIZE(kinds); chosen++)
		if (!strcmp(what, kinds[chosen].name))
			break;
	if (chosen == ARRAY_SIZE(kinds))
		return -EINVAL;
	planted_cache = kmem_cache_create("planted_cache", 120, 0, 0, NULL);
	if (!planted_cache)
		return -ENOMEM;
	planted_device = platform_device_register_simple("planted_lost", -1, NULL, 0);
	if (IS_ERR(planted_device)) {
		kmem_cache_destroy(planted_cache);
		return PTR_ERR(planted_device);
	}
	planted_device->dev.coherent_dma_mask = DMA_BIT_MASK(32);
	failed = get_at("init");
	if (!failed && !strcmp(where, "fail")) {
		failed = get();
		if (!failed)
			failed = -ENODEV;
	}
	if (!failed)
		failed = misc_register(&planted_misc);
	if (failed) {
		put();
		platform_device_unregister(planted_device);
		kmem_cache_destroy(planted_cache);
	}
	return failed;
}

static void __exit planted_lost_exit(void)
{
	misc_deregister(&planted_misc);
	put();
	if (planted_page)
		free_page((unsigned long)planted_page);
	platform_device_unregister(planted_device);
	kmem_cache_destroy(planted_cache);
}

module_init(planted_lost_init);
module_exit(planted_lost_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("loses memory as it is asked to");
