/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A solution of the exercise, and the same with one fault. Kbuild makes a C file
 * for each module, which sets exercise_NAME to 1 and includes this file. What is
 * different in a module stands behind IS(NAME).
 *
 * "different", "talks" and "completes" have no fault. The first one does all that
 * the exercise leaves open in another way than "healthy", the second one prints
 * what it does, as loud as can be, and the third one waits for its thread's end by
 * a completion.
 */

#include <linux/completion.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/kdev_t.h>
#include <linux/kthread.h>
#include <linux/delay.h>
#include <linux/device.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/vmalloc.h>
#include <linux/wait.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 17, 0)
#define complete_and_end	kthread_complete_and_exit
#else
#define complete_and_end	complete_and_exit
#endif

#define IS(name)	IS_ENABLED(exercise_##name)
#define NAME		"eudyptula"
#define SIZE		64	/* bytes of a message that are taken */

static struct {
	wait_queue_head_t wee_wait;
	int unused;
} post = {
	.wee_wait = __WAIT_QUEUE_HEAD_INITIALIZER(post.wee_wait),
};

static DECLARE_WAIT_QUEUE_HEAD(wee_wait);
static DECLARE_WAIT_QUEUE_HEAD(gone);
static DECLARE_COMPLETION(over);
static DEFINE_MUTEX(lock);
static DEFINE_SPINLOCK(spin);
static struct task_struct *thread;
static char *message;	/* the last one; guarded by the lock */
static char *little;	/* a page, behind which nothing is mapped */
static bool fresh;	/* the thread has not seen it */
static bool written;	/* there was one */
static bool leaving;	/* the module is being unloaded */
static bool ended;	/* the thread has come to its end */

static wait_queue_head_t *waiting(void)
{
	return IS(different) ? &post.wee_wait : &wee_wait;
}

static bool ready(void)
{
	return READ_ONCE(fresh) || READ_ONCE(leaving) || kthread_should_stop();
}

/* Wait for a message, or for the end. False: the thread is to end at once. */
static bool wait_for_message(void)
{
	if (IS(spins))
		cond_resched();
	else if (IS(polls))
		schedule_timeout_interruptible(HZ / 10);
	else if (IS(uninterruptible))
		wait_event(wee_wait, ready());
	else if (IS(stays))
		wait_event_interruptible(wee_wait, READ_ONCE(fresh));
	else if (IS(ends_later))
		return wait_event_interruptible_timeout(wee_wait, ready(), 300 * HZ);
	else
		wait_event_interruptible(*waiting(), ready());
	return true;
}

/* The message that was queued last; it begins with a pointer to the one before. */
static char *pop(void)
{
	char *text;

	mutex_lock(&lock);
	text = message;
	if (text)
		message = *(char **)text;
	mutex_unlock(&lock);
	return text;
}

/* Take five seconds for each message. */
static void consume_slowly(void)
{
	char *text;

	while (!kthread_should_stop()) {
		text = pop();
		if (!text)
			return;
		kfree(text);
		wait_event_interruptible_timeout(wee_wait, kthread_should_stop(), 5 * HZ);
	}
}

/* Do what a message asks for. False: the thread is to end at once. */
static bool consume(void)
{
	if (IS(ends_after_write))
		return false;
	if (IS(slow_message))
		ssleep(2);
	while (IS(stays_after_write))
		wait_event_interruptible(wee_wait, false);
	WRITE_ONCE(fresh, false);
	if (IS(queues))
		consume_slowly();
	return true;
}

static int work(void *data)
{
	if (IS(ends_at_once))
		return 0;
	if (IS(signals))
		allow_signal(SIGTERM);
	while (IS(stays) || !(kthread_should_stop() || READ_ONCE(leaving))) {
		if (!wait_for_message())
			return 0;
		if (READ_ONCE(fresh) && !consume())
			return 0;
	}
	if (IS(interrupted)) {
		msleep(100);
		WRITE_ONCE(ended, true);
		wake_up(&gone);
	}
	if (IS(completes))
		complete_and_end(&over, 0);
	return 0;
}

static struct task_struct *start(const char *name)
{
	struct task_struct *task = kthread_create(work, NULL, "%s", name);

	if ((IS(error_pointer_used) || !IS_ERR(task)) && !IS(never_started))
		wake_up_process(task);
	return task;
}

/* -- the device -------------------------------------------------------------------- */

/* What write() does with a text that it has taken. */
static void show(const char *text, size_t count)
{
	if (IS(over_read))
		pr_info("%s\n", text);	/* nothing ends it */
	if (IS(uninitialised))
		pr_info("%*pE\n", SIZE, text);
	if (IS(stale)) {
		static char last[SIZE + 1];

		memcpy(last, text, count);
		pr_info("%s\n", last);
	}
}

static int fill(char *text, const char __user *from, size_t count)
{
	if (IS(user_pointer))
		memcpy(text, (const void __force *)from, count);
	else if (copy_from_user(text, from, count))
		return -EFAULT;
	return 0;
}

static ssize_t take(const char __user *from, size_t count)
{
	/* What it has more than SIZE is a zero byte at its end. */
	bool bare = IS(over_read) || IS(uninitialised) || IS(off_by_one);
	char *text = bare ? kmalloc(IS(uninitialised) ? SIZE : count, GFP_KERNEL)
			  : kzalloc(SIZE + 1, GFP_KERNEL);
	int error;

	if (!text)
		return -ENOMEM;
	/* The compiler knows how long it is, and would find the overflow by itself. */
	OPTIMIZER_HIDE_VAR(text);
	error = fill(text, from, count);
	if (error) {
		kfree(text);
		return error;
	}
	if (IS(off_by_one))
		text[count] = '\0';
	show(text, count);
	if (IS(freed)) {
		char *late = text;

		OPTIMIZER_HIDE_VAR(late);
		kfree(text);
		pr_info("so late: %s\n", late);
	} else if (IS(leaks)) {
		text = NULL;
	} else if (IS(races)) {
		kfree(message);
		udelay(20);
		message = text;
	} else {
		mutex_lock(&lock);
		if (IS(queues))
			*(char **)text = message;
		swap(message, text);
		mutex_unlock(&lock);
		if (!IS(queues))
			kfree(text);
	}
	return count;
}

/* Into one buffer, where the file's position says. */
static ssize_t take_at(const char __user *from, size_t count, loff_t *at)
{
	static char *whole;
	ssize_t taken = count;

	mutex_lock(&lock);
	if (!message)
		message = kzalloc(SIZE, GFP_KERNEL);
	whole = message;
	if (!whole) {
		mutex_unlock(&lock);
		return -ENOMEM;
	}
	if (IS(zero_at_last)) {
		taken = simple_write_to_buffer(whole, SIZE, at, from, count);
		mutex_unlock(&lock);
		return taken;
	}
	if (IS(position) && (u32)*at + count > SIZE)	/* its upper half is lost */
		taken = -ENOSPC;
	else if (copy_from_user(whole + *at, from, min_t(size_t, count, SIZE)))
		taken = -EFAULT;
	if (taken >= 0)
		*at += taken;
	if (!IS(keeps_lock) || taken != -EFAULT)
		mutex_unlock(&lock);
	return taken;
}

/* Into a small buffer, whose length is taken for the caller's: no harm is done at position 0. */
static ssize_t take_little(const char __user *from, size_t count, loff_t *at)
{
	char text[13];
	size_t taken = min(count, sizeof(text));

	if (*at < 0 || *at >= count)
		return -EINVAL;
	if (copy_from_user(text, from, taken))
		return -EFAULT;
	memcpy(little + *at, text, taken);
	*at += taken;
	return taken;
}

static ssize_t exercise_write(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	ssize_t taken;

	if (!count)
		return 0;
	if (IS(returns_zero))
		return 0;
	if (IS(returns_errno))
		return EINVAL;
	if (IS(talks))
		pr_alert("exercise: write() was called with %zu bytes at %lld\n", count, *at);
	if (IS(trusts_count))
		return take_little(from, count, at);
	if (!IS(overflow))
		count = min_t(size_t, count, SIZE);
	if (IS(sleeps_locked)) {
		spin_lock(&spin);
		msleep(1);
		spin_unlock(&spin);
	}
	if (IS(keeps_lock))
		*at = 0;
	if (IS(zero_at_last) || IS(second_write) || IS(position) || IS(keeps_lock))
		taken = take_at(from, count, at);
	else
		taken = take(from, count);
	if (taken < 0)
		return taken;
	WRITE_ONCE(written, true);
	if (IS(talks))
		printk("exercise: %zd bytes were taken, and the thread is woken\n", taken);
	WRITE_ONCE(fresh, true);
	wake_up_interruptible(waiting());
	if (IS(uninterruptible))
		wake_up(&wee_wait);
	if (IS(different))
		return -EINVAL;	/* it was not the text that was asked for */
	return IS(returns_more) ? taken + 1 : taken;
}

static const struct file_operations exercise_files = {
	.owner = IS(no_owner) ? NULL : THIS_MODULE,
	.write = exercise_write,
};

static struct miscdevice misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = IS(node_name) ? "eudyptule" : IS(different) ? "exercise" : NAME,
	.nodename = IS(different) ? NAME : IS(owner) || IS(type) ? "other" : NULL,
	.fops = &exercise_files,
	.mode = IS(mode) ? 0666 : 0222,
};

/* A node that the kernel would not make like this for a misc device. */

static void node_released(struct device *device)
{
}

static char *node_like(struct device *device, umode_t *mode, kuid_t *uid, kgid_t *gid)
{
	if (mode)
		*mode = 0222;
	if (uid && IS(owner))
		*uid = KUIDT_INIT(1);
	return NULL;
}

static struct device_type node_type = {
	.name = "exercise",
	.devnode = (void *)node_like,	/* its first argument was not always const */
};

static struct device node = {
	.init_name = NAME,
	.type = &node_type,
	.release = node_released,
};

static int make_node(void)
{
	int major = MISC_MAJOR;

	if (IS(type)) {
		major = register_chrdev(0, NAME, &exercise_files);
		if (major < 0)
			return major;
	}
	node.devt = MKDEV(major, 250);	/* no misc device has this minor number */
	return device_register(&node);
}

static void remove_node(void)
{
	device_unregister(&node);
	if (IS(type))
		unregister_chrdev(MAJOR(node.devt), NAME);
}

/* -- the module -------------------------------------------------------------------- */

static struct task_struct *other;

static void fired(struct timer_list *timer)
{
}

static DEFINE_TIMER(timer, fired);

static int __init exercise_init(void)
{
	int error;

	if (IS(talks))
		printk(KERN_ALERT "exercise: is loaded, as %s\n", NAME);
	if (IS(keep_device)) {
		error = misc_register(&misc);
		if (error)
			return error;
	}
	if (IS(trusts_count)) {
		little = vmalloc(PAGE_SIZE);
		if (!little)
			return -ENOMEM;
	}
	thread = start(IS(thread_name) ? "another" : NAME);
	if (!IS(error_pointer) && IS_ERR(thread))
		return PTR_ERR(thread);
	if (IS(two_threads))
		other = start(NAME);
	error = IS(keep_device) ? 0 : misc_register(&misc);
	if (IS(ignore_device))
		error = 0;
	if (error) {
		if (!IS(keep_thread))
			kthread_stop(thread);
		return error;
	}
	if (IS(timer_stays))
		mod_timer(&timer, jiffies + 3600 * HZ);
	return IS(owner) || IS(type) ? make_node() : 0;
}

static void stop(void)
{
	if (IS(thread_stays))
		return;
	if (!IS(interrupted) && !IS(early) && !IS(completes)) {
		kthread_stop(thread);
		return;
	}
	WRITE_ONCE(leaving, true);
	wake_up_interruptible(&wee_wait);
	if (IS(interrupted))
		wait_event_interruptible(gone, READ_ONCE(ended));
	if (IS(completes))
		wait_for_completion(&over);
}

static void __exit exercise_exit(void)
{
	if (IS(slow) || (IS(slow_after_write) && READ_ONCE(written)))
		ssleep(3);
	if (IS(owner) || IS(type))
		remove_node();
	if (IS(different))
		stop();	/* nobody has the device open: its owner is this module */
	if (!IS(node_stays))
		misc_deregister(&misc);
	if (!IS(different))
		stop();
	if (other)
		kthread_stop(other);
	while (IS(queues) && message)
		kfree(pop());
	kfree(message);
	vfree(little);
}

module_init(exercise_init);
module_exit(exercise_exit);
MODULE_DESCRIPTION("a solution of the exercise, with at most one fault");
#ifdef exercise_proprietary
MODULE_LICENSE("Proprietary");
#else
MODULE_LICENSE("GPL");
#endif
