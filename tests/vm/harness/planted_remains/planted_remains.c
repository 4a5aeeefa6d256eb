// SPDX-License-Identifier: GPL-2.0-only
/*
 * Registers one thing when it is loaded (what=NAME), and takes it away when it is unloaded, or not
 * (take=0). Nothing of it does any harm before the kernel uses it again.
 */

#include <crypto/internal/hash.h>
#include <linux/binfmts.h>
#include <linux/cdev.h>
#include <linux/completion.h>
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/hrtimer.h>
#include <linux/inetdevice.h>
#include <linux/input.h>
#include <linux/ioport.h>
#include <linux/kdebug.h>
#include <linux/kprobes.h>
#include <linux/kthread.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/notifier.h>
#include <linux/proc_fs.h>
#include <linux/rcupdate.h>
#include <linux/reboot.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/srcu.h>
#include <linux/sysctl.h>
#include <linux/timer.h>
#include <linux/tracepoint.h>
#include <linux/version.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>
#include <net/genetlink.h>
#include <net/net_namespace.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 14, 0)
#include <linux/panic_notifier.h>
#endif

static char *what = "nothing";
module_param(what, charp, 0444);
static bool take = true;
module_param(take, bool, 0444);

static int notified(struct notifier_block *block, unsigned long event, void *data)
{
	return NOTIFY_DONE;
}

static struct notifier_block planted_block = { .notifier_call = notified };

static int reboot_on(void) { return register_reboot_notifier(&planted_block); }
static void reboot_off(void) { unregister_reboot_notifier(&planted_block); }

static int panic_on(void)
{
	return atomic_notifier_chain_register(&panic_notifier_list, &planted_block);
}

static void panic_off(void)
{
	atomic_notifier_chain_unregister(&panic_notifier_list, &planted_block);
}

static int die_on(void) { return register_die_notifier(&planted_block); }
static void die_off(void) { unregister_die_notifier(&planted_block); }

static int netdevice_on(void) { return register_netdevice_notifier(&planted_block); }
static void netdevice_off(void) { unregister_netdevice_notifier(&planted_block); }

static int inet_on(void) { return register_inetaddr_notifier(&planted_block); }
static void inet_off(void) { unregister_inetaddr_notifier(&planted_block); }

static unsigned int hooked(void *priv, struct sk_buff *skb, const struct nf_hook_state *state)
{
	return NF_ACCEPT;
}

static const struct nf_hook_ops planted_hook = {
	.hook = hooked, .pf = NFPROTO_IPV4, .hooknum = NF_INET_FORWARD,
};

static int netfilter_on(void) { return nf_register_net_hook(&init_net, &planted_hook); }
static void netfilter_off(void) { nf_unregister_net_hook(&init_net, &planted_hook); }

static void fired(struct timer_list *timer) { }
static struct timer_list planted_timer;

static int timer_on(void)
{
	timer_setup(&planted_timer, fired, 0);
	mod_timer(&planted_timer, jiffies + 3600 * HZ);
	return 0;
}

static void timer_off(void)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
	timer_delete_sync(&planted_timer);
#else
	del_timer_sync(&planted_timer);
#endif
}

static enum hrtimer_restart expired(struct hrtimer *timer) { return HRTIMER_NORESTART; }
static struct hrtimer planted_hrtimer;

static int hrtimer_on(void)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
	hrtimer_setup(&planted_hrtimer, expired, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
#else
	hrtimer_init(&planted_hrtimer, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
	planted_hrtimer.function = expired;
#endif
	hrtimer_start(&planted_hrtimer, ktime_set(3600, 0), HRTIMER_MODE_REL);
	return 0;
}

static void hrtimer_off(void) { hrtimer_cancel(&planted_hrtimer); }

/* One that runs all the time: what it calls leaves its address on stacks. */
static enum hrtimer_restart ticked(struct hrtimer *timer)
{
	hrtimer_forward_now(timer, ms_to_ktime(5));
	return HRTIMER_RESTART;
}

static int ticks_on(void)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
	hrtimer_setup(&planted_hrtimer, ticked, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
#else
	hrtimer_init(&planted_hrtimer, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
	planted_hrtimer.function = ticked;
#endif
	hrtimer_start(&planted_hrtimer, ms_to_ktime(5), HRTIMER_MODE_REL);
	return 0;
}

static void worked(struct work_struct *work) { }
static DECLARE_DELAYED_WORK(planted_work, worked);

static int work_on(void)
{
	schedule_delayed_work(&planted_work, 3600 * HZ);
	return 0;
}

static void work_off(void) { cancel_delayed_work_sync(&planted_work); }

static int probed(struct kprobe *probe, struct pt_regs *regs) { return 0; }
static struct kprobe planted_probe = { .symbol_name = "kernel_clone", .pre_handler = probed };

static int kprobe_on(void) { return register_kprobe(&planted_probe); }
static void kprobe_off(void) { unregister_kprobe(&planted_probe); }

static int shown(struct seq_file *file, void *data) { return 0; }

/* In init's network namespace, whose folder is not seen in another one. */
static int proc_on(void)
{
	return proc_create_single("planted_remains", 0444, init_net.proc_net, shown) ? 0 : -ENOMEM;
}

static void proc_off(void) { remove_proc_entry("planted_remains", init_net.proc_net); }

static const struct file_operations planted_files = { .llseek = noop_llseek };
static struct dentry *planted_folder;

static int debugfs_on(void)
{
	planted_folder = debugfs_create_dir("planted_remains", NULL);
	debugfs_create_file("deep", 0444, debugfs_create_dir("down", planted_folder), NULL,
			    &planted_files);
	return 0;
}

static void debugfs_off(void) { debugfs_remove_recursive(planted_folder); }

static struct cdev planted_cdev;

/* Without register_chrdev_region(), so that /proc/devices says nothing of it. */
static int cdev_on(void)
{
	cdev_init(&planted_cdev, &planted_files);
	return cdev_add(&planted_cdev, MKDEV(240, 7), 1);
}

static void cdev_off(void) { cdev_del(&planted_cdev); }

static int asked(struct sk_buff *skb, struct genl_info *info) { return 0; }
static const struct genl_ops planted_ops[] = { { .cmd = 1, .doit = asked } };
static struct genl_family planted_family = {
	.name = "planted", .version = 1, .maxattr = 1, .module = THIS_MODULE,
	.ops = planted_ops, .n_ops = 1,
};

static int genl_on(void) { return genl_register_family(&planted_family); }
static void genl_off(void) { genl_unregister_family(&planted_family); }

static int loaded(struct linux_binprm *program) { return -ENOEXEC; }
static struct linux_binfmt planted_format = { .module = THIS_MODULE, .load_binary = loaded };

static int binfmt_on(void) { insert_binfmt(&planted_format); return 0; }
static void binfmt_off(void) { unregister_binfmt(&planted_format); }

/* These four the kernel lists, by following pointers into the module. */

static const struct file_operations no_calls = { .owner = THIS_MODULE };
static struct miscdevice planted_misc = {
	.minor = MISC_DYNAMIC_MINOR, .name = "planted_misc", .fops = &no_calls,
};

static int misc_on(void) { return misc_register(&planted_misc); }
static void misc_off(void) { misc_deregister(&planted_misc); }

static void no_kill(struct super_block *super) { }
static struct file_system_type planted_type = {
	.owner = THIS_MODULE, .name = "planted_type", .kill_sb = no_kill,
};

static int filesystem_on(void) { return register_filesystem(&planted_type); }
static void filesystem_off(void) { unregister_filesystem(&planted_type); }

/* A range of the PCI host bridge that no device has. */
static const char planted_region[] = "planted_region";

static int region_on(void)
{
	return request_mem_region(0xf0000000, 16, planted_region) ? 0 : -EBUSY;
}

static void region_off(void) { release_mem_region(0xf0000000, 16); }

static int hash_begin(struct shash_desc *desc) { return 0; }
static int hash_end(struct shash_desc *desc, u8 *out) { return 0; }
static int hash_more(struct shash_desc *desc, const u8 *data, unsigned int length) { return 0; }
static struct shash_alg planted_hash = {
	.digestsize = 16, .descsize = 8,
	.init = hash_begin, .update = hash_more, .final = hash_end,
	.base = { .cra_name = "planted", .cra_driver_name = "planted-drv", .cra_blocksize = 1,
		  .cra_module = THIS_MODULE },
};

static int crypto_on(void) { return crypto_register_shash(&planted_hash); }
static void crypto_off(void) { crypto_unregister_shash(&planted_hash); }

static int planted_value;
static struct ctl_table planted_table[] = {
	{ .procname = "planted_value", .data = &planted_value, .maxlen = sizeof(int),
	  .mode = 0444, .proc_handler = proc_dointvec },
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
	{ }
#endif
};
static struct ctl_table_header *planted_header;

static int sysctl_on(void)
{
	planted_header = register_sysctl("kernel", planted_table);
	return planted_header ? 0 : -ENOMEM;
}

static void sysctl_off(void) { unregister_sysctl_table(planted_header); }

/* A probe in a place that the kernel comes to only when a CPU is plugged in. */
static struct tracepoint *planted_point;

static void find_point(struct tracepoint *point, void *data)
{
	if (!strcmp(point->name, "cpuhp_enter"))
		planted_point = point;
}

static void planted_traced(void *data) { }

static int tracepoint_on(void)
{
	for_each_kernel_tracepoint(find_point, NULL);
	return planted_point ? tracepoint_probe_register(planted_point, planted_traced, NULL) : -ENODEV;
}

static void tracepoint_off(void)
{
	tracepoint_probe_unregister(planted_point, planted_traced, NULL);
	tracepoint_synchronize_unregister();
}

static unsigned long counted(struct shrinker *shrinker, struct shrink_control *control)
{
	return 0;
}

static unsigned long shrunk(struct shrinker *shrinker, struct shrink_control *control)
{
	return SHRINK_STOP;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
static struct shrinker *planted_shrinker;

static int shrinker_on(void)
{
	planted_shrinker = shrinker_alloc(0, "planted");
	if (!planted_shrinker)
		return -ENOMEM;
	planted_shrinker->count_objects = counted;
	planted_shrinker->scan_objects = shrunk;
	shrinker_register(planted_shrinker);
	return 0;
}

static void shrinker_off(void) { shrinker_free(planted_shrinker); }
#else
static struct shrinker planted_shrinker = {
	.count_objects = counted, .scan_objects = shrunk, .seeks = DEFAULT_SEEKS,
};

static int shrinker_on(void)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 0, 0)
	return register_shrinker(&planted_shrinker, "planted");
#else
	return register_shrinker(&planted_shrinker);
#endif
}

static void shrinker_off(void) { unregister_shrinker(&planted_shrinker); }
#endif

/* A device whose files do not keep the module from being unloaded. */
static const struct file_operations without_owner;
static struct miscdevice planted_open = {
	.minor = MISC_DYNAMIC_MINOR, .name = "planted_open", .fops = &without_owner,
};

static int open_on(void) { return misc_register(&planted_open); }
static void open_off(void) { misc_deregister(&planted_open); }

static int connected(struct input_handler *handler, struct input_dev *dev,
		     const struct input_device_id *id)
{
	return -ENODEV;
}

static void had_event(struct input_handle *handle, unsigned int type, unsigned int code, int value)
{
}

static const struct input_device_id planted_ids[] = { { .driver_info = 1 }, { } };
static struct input_handler planted_handler = {
	.name = "planted", .connect = connected, .event = had_event, .id_table = planted_ids,
};

static int input_on(void) { return input_register_handler(&planted_handler); }
static void input_off(void) { input_unregister_handler(&planted_handler); }

static struct task_struct *planted_task;
static DECLARE_COMPLETION(planted_runs);

static int sleeps(void *data)
{
	complete(&planted_runs);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(3600 * HZ);
	return 0;
}

static int kthread_on(void)
{
	planted_task = kthread_run(sleeps, NULL, "planted_sleeps");
	if (IS_ERR(planted_task))
		return PTR_ERR(planted_task);
	wait_for_completion(&planted_runs); /* its function is to be on its stack */
	return 0;
}

static void kthread_off(void) { kthread_stop(planted_task); }

/* The healthy ones that look alike: freed after a grace period, the one with our code, one not. */
struct planted_object {
	const struct file_operations *files;
	struct rcu_head rcu;
};

static struct planted_object *planted_object;

static int object_on(void)
{
	planted_object = kzalloc(sizeof(*planted_object), GFP_KERNEL);
	if (!planted_object)
		return -ENOMEM;
	planted_object->files = &planted_files;
	return 0;
}

static void object_off(void) { kfree_rcu(planted_object, rcu); }

static void called_back(struct rcu_head *rcu)
{
	kfree(container_of(rcu, struct planted_object, rcu));
}

static void callback_off(void)
{
	call_rcu(&planted_object->rcu, called_back);
	rcu_barrier();
}

static int done_on(void)
{
	schedule_delayed_work(&planted_work, 1);
	return 0;
}

static void done_off(void) { flush_delayed_work(&planted_work); }

/* Each CPU's part of one points to it, and is not cleared when it is freed. */
DEFINE_STATIC_SRCU(planted_static_srcu);
static struct srcu_struct planted_srcu;

static int srcu_on(void)
{
	synchronize_srcu(&planted_static_srcu);
	return init_srcu_struct(&planted_srcu);
}

static void srcu_off(void) { cleanup_srcu_struct(&planted_srcu); }

static int nothing_on(void) { return 0; }
static void nothing_off(void) { }

static const struct {
	const char *name;
	int (*on)(void);
	void (*off)(void);
} kinds[] = {
	{ "nothing", nothing_on, nothing_off }, { "reboot", reboot_on, reboot_off },
	{ "shrinker", shrinker_on, shrinker_off }, { "panic", panic_on, panic_off }, { "die", die_on, die_off },
	{ "netdevice", netdevice_on, netdevice_off }, { "inet", inet_on, inet_off },
	{ "netfilter", netfilter_on, netfilter_off }, { "timer", timer_on, timer_off },
	{ "hrtimer", hrtimer_on, hrtimer_off }, { "work", work_on, work_off },
	{ "kprobe", kprobe_on, kprobe_off }, { "proc", proc_on, proc_off },
	{ "debugfs", debugfs_on, debugfs_off }, { "cdev", cdev_on, cdev_off },
	{ "genl", genl_on, genl_off }, { "binfmt", binfmt_on, binfmt_off },
	{ "input", input_on, input_off }, { "kthread", kthread_on, kthread_off },
	{ "object", object_on, object_off }, { "callback", object_on, callback_off },
	{ "misc", misc_on, misc_off }, { "filesystem", filesystem_on, filesystem_off },
	{ "region", region_on, region_off }, { "crypto", crypto_on, crypto_off },
	{ "sysctl", sysctl_on, sysctl_off }, { "tracepoint", tracepoint_on, tracepoint_off },
	{ "open", open_on, open_off }, { "done", done_on, done_off },
	{ "srcu", srcu_on, srcu_off }, { "ticks", ticks_on, hrtimer_off },
};

static int chosen;

/* An area that init asks for itself: the kernel writes down who has. */
static void *planted_area;

static int __init planted_remains_init(void)
{
	if (!strcmp(what, "area")) {
		planted_area = vmalloc_user(4 * PAGE_SIZE);
		return planted_area ? 0 : -ENOMEM;
	}
	for (chosen = 0; chosen < ARRAY_SIZE(kinds); chosen++)
		if (!strcmp(what, kinds[chosen].name))
			return kinds[chosen].on();
	return -EINVAL;
}

static void __exit planted_remains_exit(void)
{
	if (take && planted_area)
		vfree(planted_area);
	else if (take)
		kinds[chosen].off();
}

module_init(planted_remains_init);
module_exit(planted_remains_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("leaves behind what it is asked to");
