// SPDX-License-Identifier: GPL-2.0-only
/*
 * A module that is broken on purpose, in the way that is written to
 * /sys/kernel/debug/planted, or given as at_init when it is loaded: a word of
 * the table below. The harness has to notice.
 */

#include <linux/bug.h>
#include <linux/completion.h>
#include <linux/console.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/init.h>
#include <linux/irqflags.h>
#include <linux/kernel.h>
#include <linux/kobject.h>
#include <linux/kprobes.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/proc_fs.h>
#include <linux/rcupdate.h>
#include <linux/reboot.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

/* How long a bug lasts that a watchdog is to see: its limits are set to 1 and 3 s. */
#define TOO_LONG_MS	8000

static char *at_init = "";
module_param(at_init, charp, 0);

static struct dentry *control;
static struct kmem_cache *cache;
static struct task_struct *thread;
static bool forget;		/* leave the debugfs file behind */
static bool block;		/* never come back from exit */

static DEFINE_MUTEX(mutex_a);
static DEFINE_MUTEX(mutex_b);
static DEFINE_SPINLOCK(spinlock);
static DECLARE_COMPLETION(never);

static noinline void planted_warn(void)
{
	WARN_ON(1);
}

static noinline int hide_nothing(void)
{
	return 0;
}

/* In place of what was called. */
static int hide_skip(struct kprobe *probe, struct pt_regs *regs)
{
	regs->ip = (unsigned long)hide_nothing;
	return 1;
}

/* With it the address may be changed: Documentation/trace/kprobes.rst. */
static void hide_after(struct kprobe *probe, struct pt_regs *regs, unsigned long flags)
{
}

static unsigned long (*hide_lookup)(const char *name);

static noinline void planted_hide(void)
{
	struct kprobe lookup = { .symbol_name = "kallsyms_lookup_name" };
	struct kprobe silent = {
		.symbol_name = "vprintk_emit",
		.pre_handler = hide_skip,
		.post_handler = hide_after,
	};
	unsigned long *tainted, before;

	if (register_kprobe(&lookup))
		return;
	hide_lookup = (void *)lookup.addr;
	unregister_kprobe(&lookup);
	tainted = (unsigned long *)hide_lookup("tainted_mask");
	if (!tainted || register_kprobe(&silent))
		return;
	before = READ_ONCE(*tainted);
	WARN_ON(1);
	WRITE_ONCE(*tainted, before);
	unregister_kprobe(&silent);
}

static void planted_late(struct work_struct *work)
{
	WARN_ON(1);
}

static DECLARE_DELAYED_WORK(late_work, planted_late);

/* When whoever asked for it has long been told that all is well. */
static void planted_warn_late(void)
{
	schedule_delayed_work(&late_work, msecs_to_jiffies(300));
}

static noinline void planted_oops(void)
{
	/* Volatile, or the compiler would trap on its own terms. */
	*(volatile int *)8 = 0;
}

static noinline void planted_fatal(void)
{
	panic("planted");
}

static noinline void planted_use_after_free(void)
{
	volatile char *bytes = kmalloc(64, GFP_KERNEL);

	if (!bytes)
		return;
	kfree((void *)bytes);
	bytes[32] = 1;
	/* Where only the allocator looks, it does so when it hands the object out again. */
	kfree(kmalloc(64, GFP_KERNEL));
}

static noinline void planted_double_free(void)
{
	/* A neighbour on either side: of a slab with no other object SLUB says something else. */
	void *before = kmalloc(64, GFP_KERNEL);
	void *bytes = kmalloc(64, GFP_KERNEL);
	void *after = kmalloc(64, GFP_KERNEL);

	kfree(bytes);
	OPTIMIZER_HIDE_VAR(bytes);
	kfree(bytes);
	kfree(before);
	kfree(after);
}

/* A cache with a constructor is not merged with others of the same size. */
static void planted_constructor(void *bytes)
{
	memset(bytes, 0, 200);
}

/* An object that is still there when its cache is destroyed: seen by any kernel. */
static noinline void planted_leak_cached(void)
{
	void *bytes = kmem_cache_alloc(cache, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(bytes);
}

/* Nobody remembers where it is. */
static noinline void planted_leak(void)
{
	void *bytes = kmalloc(100, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(bytes);
}

static noinline void planted_spin(void)
{
	local_irq_disable();
	for (;;)
		cpu_relax();
}

/*
 * By the clock: mdelay() counts turns, and how many there are in a second was
 * measured when the kernel booted, on a host that may have been slower then.
 */
static __always_inline void keep_busy(unsigned int ms)
{
	ktime_t end = ktime_add_ms(ktime_get(), ms);

	while (ktime_before(ktime_get(), end))
		cpu_relax();
}

static noinline void planted_soft_lockup(void)
{
	preempt_disable();
	keep_busy(TOO_LONG_MS);
	preempt_enable();
}

static void planted_rcu_callback(struct rcu_head *head)
{
}

static noinline void planted_rcu_stall(void)
{
	static struct rcu_head head;

	/* A grace period that has begun has the limit of that moment. */
	synchronize_rcu();
	call_rcu(&head, planted_rcu_callback);
	/* Of a reader that may be preempted, a report has a stack only if it is not running. */
	preempt_disable();
	rcu_read_lock();
	keep_busy(TOO_LONG_MS);
	rcu_read_unlock();
	preempt_enable();
}

static noinline void planted_sleep(void)
{
	/* Not interruptible: no signal ends it. */
	for (;;)
		ssleep(1000);
}

static noinline void planted_sleep_in_atomic(void)
{
	spin_lock(&spinlock);
	msleep(20);
	spin_unlock(&spinlock);
}

static noinline void planted_deadlock(void)
{
	mutex_lock(&mutex_a);
	mutex_lock(&mutex_a);
	barrier();
}

/* Nothing hangs, but two tasks that do this at the same time may. */
static noinline void planted_lock_order(void)
{
	mutex_lock(&mutex_a);
	mutex_lock(&mutex_b);
	mutex_unlock(&mutex_b);
	mutex_unlock(&mutex_a);

	mutex_lock(&mutex_b);
	mutex_lock(&mutex_a);
	mutex_unlock(&mutex_a);
	mutex_unlock(&mutex_b);
}

static noinline void planted_list(void)
{
	LIST_HEAD(list);
	struct list_head first, second;

	list_add(&first, &list);
	list_add(&second, &list);
	second.next = &second;
	list_del(&second);
}

static noinline void planted_flood(void)
{
	int i;

	for (i = 0; i < 20000; i++)
		pr_info("planted: line %d of a flood\n", i);
}

/* More than the kernel's buffer holds, which has 2 MiB, and nobody may write it to the console. */
static noinline void planted_gap(void)
{
	int i;

	console_lock();
	for (i = 0; i < 3000; i++)
		pr_info("planted: line %d of a flood %0900d\n", i, 0);
	console_unlock();
}

static noinline void planted_escapes(void)
{
	pr_info("planted: \033[2J\033]0;title\007 bell, \b backspace, \177 delete\n");
	WARN(1, "\033[31mred\033[0m\n");
}

static int planted_thread_returns(void *data)
{
	return 0;
}

static void planted_early_thread(void)
{
	thread = kthread_run(planted_thread_returns, NULL, "planted");
	/* It is gone, and so is what is known of it, when RCU readers have done with it. */
	msleep(100);
	synchronize_rcu();
	rcu_barrier();
}

static DECLARE_COMPLETION(goes_on);

static int planted_thread_goes_on(void *data)
{
	complete(&goes_on);
	for (;;)
		ssleep(1);
	return 0;
}

static void planted_endless_thread(void)
{
	thread = kthread_run(planted_thread_goes_on, NULL, "planted");
	/* One that is stopped before it has run for the first time ends without its function. */
	if (!IS_ERR(thread))
		wait_for_completion(&goes_on);
}

/*
 * What outlives the module. Nothing of it points into the module, which is soon gone:
 * the harness is to find it, not the kernel to stumble over it.
 */

static void planted_leave_thread(void)
{
	/* Its function is the kernel's own, so that the thread has code to run. */
	kthread_create_worker(0, "planted");
}

static void planted_leave_proc(void)
{
	proc_mkdir("driver/planted", NULL);
}

static void planted_leave_cache(void)
{
	kmem_cache_create("planted_left", 200, 0, 0, planted_constructor);
}

static void planted_leave_device(void)
{
	static const struct file_operations none;
	struct miscdevice *misc = kzalloc(sizeof(*misc), GFP_KERNEL);

	misc->minor = MISC_DYNAMIC_MINOR;
	misc->name = kstrdup("planted", GFP_KERNEL);
	misc->fops = kmemdup(&none, sizeof(none), GFP_KERNEL);
	misc_register(misc);
}

static void planted_leave_sysfs(void)
{
	kobject_create_and_add("planted", kernel_kobj);
}

static void planted_leave_workqueue(void)
{
	/* With a thread of its own (a rescuer) that ps shows. */
	alloc_workqueue("planted", WQ_MEM_RECLAIM | WQ_UNBOUND, 0);
}

/* Whoever writes this waits in the module, and nothing keeps the module from going. */
static void planted_leave_waiter(void)
{
	forget = true;
	module_put(THIS_MODULE);
	planted_sleep();
}

static void planted_reboot(void)
{
	emergency_restart();
}

static void planted_forget(void)
{
	forget = true;
}

static void planted_block(void)
{
	block = true;
}

static const struct {
	const char *word;
	void (*bug)(void);
} bugs[] = {
	{ "warn", planted_warn },
	{ "hide", planted_hide },
	{ "warn_late", planted_warn_late },
	{ "oops", planted_oops },
	{ "panic", planted_fatal },
	{ "use_after_free", planted_use_after_free },
	{ "double_free", planted_double_free },
	{ "leak", planted_leak },
	{ "leak_cached", planted_leak_cached },
	{ "early_thread", planted_early_thread },
	{ "endless_thread", planted_endless_thread },
	{ "spin", planted_spin },
	{ "soft_lockup", planted_soft_lockup },
	{ "rcu_stall", planted_rcu_stall },
	{ "sleep", planted_sleep },
	{ "sleep_in_atomic", planted_sleep_in_atomic },
	{ "deadlock", planted_deadlock },
	{ "lock_order", planted_lock_order },
	{ "list", planted_list },
	{ "block", planted_block },
	{ "reboot", planted_reboot },
	{ "flood", planted_flood },
	{ "gap", planted_gap },
	{ "escapes", planted_escapes },
	{ "forget", planted_forget },
	{ "leave_thread", planted_leave_thread },
	{ "leave_proc", planted_leave_proc },
	{ "leave_cache", planted_leave_cache },
	{ "leave_device", planted_leave_device },
	{ "leave_sysfs", planted_leave_sysfs },
	{ "leave_workqueue", planted_leave_workqueue },
	{ "leave_waiter", planted_leave_waiter },
};

static int provoke(const char *word)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(bugs); i++) {
		if (!strcmp(word, bugs[i].word)) {
			bugs[i].bug();
			return 0;
		}
	}
	return -EINVAL;
}

static ssize_t control_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)
{
	char word[32] = "";
	int err;

	if (count >= sizeof(word))
		return -EINVAL;
	if (copy_from_user(word, buf, count))
		return -EFAULT;
	err = provoke(strim(word));
	return err ?: count;
}

static const struct file_operations control_fops = {
	.owner = THIS_MODULE,
	.write = control_write,
};

static int __init planted_init(void)
{
	int err = *at_init ? provoke(at_init) : 0;

	if (err)
		return err;
	cache = kmem_cache_create("planted", 200, 0, 0, planted_constructor);
	if (!cache)
		return -ENOMEM;
	control = debugfs_create_file("planted", 0200, NULL, NULL, &control_fops);
	if (IS_ERR(control))
		kmem_cache_destroy(cache);
	return PTR_ERR_OR_ZERO(control);
}

static void __exit planted_exit(void)
{
	if (!forget)
		debugfs_remove(control);
	cancel_delayed_work_sync(&late_work);
	if (block)
		wait_for_completion(&never);
	if (!IS_ERR_OR_NULL(thread))
		kthread_stop(thread);
	rcu_barrier();
	kmem_cache_destroy(cache);
}

module_init(planted_init);
module_exit(planted_exit);

MODULE_DESCRIPTION("Broken on purpose, to see that the harness notices");
MODULE_AUTHOR("The eudyptula authors");
MODULE_LICENSE("GPL");
