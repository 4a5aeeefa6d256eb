// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/eudyptula: anyone may write messages to it, and a kernel thread consumes
 * them. An example of a misc device, wait queues and a kernel thread. The file
 * ABI in this folder documents what users see.
 *
 * The states of a message:
 *
 *	COPIED --1--> QUEUED --5--> CONSUMED
 *	  |             ^
 *	  2             3
 *	  |             |
 *	  +---> WAITING-+
 *	           |
 *	           +----4--> DROPPED
 *
 * 1: there is room: the writer appends the message and wakes the thread, which
 *    sleeps on wee_wait
 * 2: there is no room: the writer sleeps on room_wait
 * 3: the thread made room and woke all writers, and this writer was the first
 *    to use the room
 * 4: a signal ended the sleep; a writer with O_NONBLOCK does not sleep at all
 * 5: the thread traced, counted and freed the message
 *
 * The writer copies its message from user space before it takes any lock. The
 * copy can fail, and userfaultfd lets a user make it take for ever.
 *
 * The memory is bounded: the queue holds 64 KiB of messages, and each sleeping
 * writer holds one more. With messages of a single byte the queue needs 4 MiB,
 * most of it for the headers. All of it is charged to the writers' cgroups.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/device.h>
#include <linux/err.h>
#include <linux/errno.h>
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/minmax.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/poll.h>
#include <linux/printk.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/sysfs.h>
#include <linux/types.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#define CREATE_TRACE_POINTS
#include "eudyptula_trace.h"

#define MISCDEV_NAME	"eudyptula"
#define MAINTHREAD_N	"eudyptula"

/* The same numbers as for a pipe: PIPE_BUF, and the default capacity. */
#define MESSAGE_MAX	4096
#define QUEUE_SIZE	65536

/* The log shows this many bytes of a message: the most that %ph prints. */
#define DEBUG_MAX	64

struct message {
	struct list_head link;
	u64 sequence;		/* 1 for the first message */
	u64 queued_ns;		/* ktime_get_ns() when it was queued */
	unsigned int length;
	char text[];
};

/* The thread sleeps here while the queue is empty. */
static DECLARE_WAIT_QUEUE_HEAD(wee_wait);

/* Writers and poll() sleep here while the queue is full. */
static DECLARE_WAIT_QUEUE_HEAD(room_wait);

/*
 * Guards the queue and the counters below, so that they always agree. Nothing
 * sleeps while holding it, and no interrupt handler takes it.
 *
 * No other barrier is needed. A sleeper enqueues itself on a wait queue before
 * it tests the condition, and a waker changes the condition before it wakes.
 * Both do so under locks: the wait queue's own, and this one.
 */
static DEFINE_SPINLOCK(queue_lock);
static LIST_HEAD(queue);	/* of struct message, oldest first */
static u64 pending;		/* bytes in the queue */
static u64 accepted;		/* messages that ever entered the queue */
static u64 consumed;		/* messages that left it */
static u64 blocked;		/* how often a writer began to sleep */

/* Valid until kthread_stop(): thread_runner() does not return before that. */
static struct task_struct *mythread;

static bool queue_has_room(unsigned int length)
{
	lockdep_assert_held(&queue_lock);
	return length <= QUEUE_SIZE - pending;
}

/*
 * Queue @msg if there is room for all of it. If this returns false, the caller
 * still owns the message. If it returns true, the thread owns the message and
 * may already have freed it.
 */
static bool queue_message(struct message *msg)
{
	spin_lock(&queue_lock);
	if (!queue_has_room(msg->length)) {
		spin_unlock(&queue_lock);
		return false;
	}
	list_add_tail(&msg->link, &queue);
	pending += msg->length;
	msg->sequence = ++accepted;
	msg->queued_ns = ktime_get_ns();
	/* Under the lock, so that this event precedes message_consumed. */
	trace_message_queued(msg->sequence, msg->length);
	spin_unlock(&queue_lock);

	wake_up_interruptible(&wee_wait);
	return true;
}

static struct message *oldest_message(void)
{
	struct message *msg;

	spin_lock(&queue_lock);
	msg = list_first_entry_or_null(&queue, struct message, link);
	spin_unlock(&queue_lock);

	return msg;
}

/*
 * Take @msg out of the queue, count it and free it.
 *
 * Writers are woken at the moment when there is room for a message of the
 * largest size again. This is also when poll() starts to report EPOLLOUT.
 * No writer is left asleep: a writer that sleeps has seen less room than that
 * after it had joined room_wait, and the thread consumes until the queue is
 * empty, so it passes that moment.
 *
 * All sleepers are woken, not only one (an "exclusive" wait). A single one
 * might not use the room: its message may be larger than the room that another
 * writer has left, it may only watch with EPOLLEXCLUSIVE, or it may get no CPU.
 * Then the others would sleep although the queue is empty.
 */
static void retire_message(struct message *msg)
{
	bool was_full;
	bool is_full;

	spin_lock(&queue_lock);
	was_full = !queue_has_room(MESSAGE_MAX);
	list_del(&msg->link);
	pending -= msg->length;
	consumed++;
	is_full = !queue_has_room(MESSAGE_MAX);
	spin_unlock(&queue_lock);

	if (was_full && !is_full)
		wake_up_interruptible_poll(&room_wait, EPOLLOUT | EPOLLWRNORM);
	kfree(msg);
}

/*
 * Consume until the queue is empty. There is only one consumer at any time: the
 * thread, and after the thread has ended waitqueues_exit(). So the oldest
 * message may be read without the lock: nobody else removes it. A message is
 * traced before it is counted, so every message that is counted as consumed is
 * in the trace.
 */
static void consume_messages(void)
{
	struct message *msg;

	while ((msg = oldest_message())) {
		trace_message_consumed(msg->sequence, msg->length,
				       ktime_get_ns() - msg->queued_ns);
		/*
		 * Users choose the bytes and the rate. So the bytes are shown in
		 * hexadecimal, cut to DEBUG_MAX, and the lines are limited.
		 */
		pr_debug_ratelimited("message %llu, %u bytes: %*ph\n",
				     msg->sequence, msg->length,
				     min_t(int, msg->length, DEBUG_MAX),
				     msg->text);
		retire_message(msg);
		cond_resched();
	}
}

/*
 * The thread. It returns only after kthread_stop() has been called.
 *
 * The wait is interruptible because an uninterruptible sleep counts as system
 * load. No signal ever ends it: kernel threads ignore signals. Its result can
 * be ignored: on newer kernels kthread_stop() ends the wait with an error, and
 * the loop tests kthread_should_stop() anyway.
 */
static int thread_runner(void *data)
{
	while (!kthread_should_stop()) {
		wait_event_interruptible(wee_wait, oldest_message() ||
					 kthread_should_stop());
		consume_messages();
	}
	return 0;
}

static int driver_open(struct inode *inode, struct file *file)
{
	/* Mode 0222 stops ordinary users from reading. This stops root too. */
	if (file->f_mode & FMODE_READ)
		return -EACCES;

	/*
	 * A stream has no file position. So the kernel takes no position lock,
	 * with which one sleeping writer would block others that share the file.
	 */
	return stream_open(inode, file);
}

static struct message *copy_message(const char __user *buf, size_t count)
{
	struct message *msg;

	msg = kmalloc(struct_size(msg, text, count), GFP_KERNEL_ACCOUNT);
	if (!msg)
		return ERR_PTR(-ENOMEM);

	if (copy_from_user(msg->text, buf, count)) {
		kfree(msg);
		return ERR_PTR(-EFAULT);
	}
	msg->length = count;
	return msg;
}

/* Sleep until @msg is queued. After an error the caller still owns it. */
static int wait_for_room(struct message *msg)
{
	spin_lock(&queue_lock);
	blocked++;
	spin_unlock(&queue_lock);

	/*
	 * The condition itself queues the message. It is evaluated
	 * - after joining room_wait, so that no wake-up is lost;
	 * - after each wake-up, because another writer may have used the room;
	 * - before a pending signal is considered. So a message is either queued
	 *   or refused, never both.
	 */
	return wait_event_interruptible(room_wait, queue_message(msg));
}

static ssize_t driver_write(struct file *file, const char __user *buf,
			    size_t count, loff_t *ppos)
{
	struct message *msg;
	int err = 0;

	if (!count)
		return 0;
	if (count > MESSAGE_MAX)
		return -EMSGSIZE;

	msg = copy_message(buf, count);
	if (IS_ERR(msg))
		return PTR_ERR(msg);

	if (!queue_message(msg)) {
		if (file->f_flags & O_NONBLOCK)
			err = -EAGAIN;
		else
			err = wait_for_room(msg);
	}
	if (err) {
		kfree(msg);
		return err;
	}
	return count;
}

static __poll_t driver_poll(struct file *file, poll_table *wait)
{
	bool has_room;

	/* Join the wait queue before the test, so that no wake-up is lost. */
	poll_wait(file, &room_wait, wait);

	spin_lock(&queue_lock);
	has_room = queue_has_room(MESSAGE_MAX);
	spin_unlock(&queue_lock);

	return has_room ? EPOLLOUT | EPOLLWRNORM : 0;
}

/* No .read: driver_open() refuses it. No .llseek: stream_open() forbids it. */
static const struct file_operations mfops = {
	.owner = THIS_MODULE,	/* no rmmod while the device is open */
	.open = driver_open,
	.write = driver_write,
	.poll = driver_poll,
};

static ssize_t counter_show(const u64 *counter, char *buf)
{
	u64 value;

	/* A 32-bit CPU reads 64 bits in two steps; the lock keeps them together. */
	spin_lock(&queue_lock);
	value = *counter;
	spin_unlock(&queue_lock);

	return sysfs_emit(buf, "%llu\n", value);
}

static ssize_t accepted_show(struct device *dev, struct device_attribute *attr,
			     char *buf)
{
	return counter_show(&accepted, buf);
}

static ssize_t consumed_show(struct device *dev, struct device_attribute *attr,
			     char *buf)
{
	return counter_show(&consumed, buf);
}

static ssize_t pending_show(struct device *dev, struct device_attribute *attr,
			    char *buf)
{
	return counter_show(&pending, buf);
}

static ssize_t blocked_show(struct device *dev, struct device_attribute *attr,
			    char *buf)
{
	return counter_show(&blocked, buf);
}

/* Mode 0444: anyone may read the counters, and nobody may set them. */
static DEVICE_ATTR_RO(accepted);
static DEVICE_ATTR_RO(consumed);
static DEVICE_ATTR_RO(pending);
static DEVICE_ATTR_RO(blocked);

static struct attribute *eudyptula_attrs[] = {
	&dev_attr_accepted.attr,
	&dev_attr_consumed.attr,
	&dev_attr_pending.attr,
	&dev_attr_blocked.attr,
	NULL
};
ATTRIBUTE_GROUPS(eudyptula);

static struct miscdevice miscdev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = MISCDEV_NAME,
	.fops = &mfops,
	.groups = eudyptula_groups,	/* created before udev is told */
	.mode = 0222,			/* anyone may write, no one may read */
};

/*
 * The device is registered last. From then on anybody may use it, so everything
 * else must be ready. And nothing after it may fail: a module whose init fails
 * is freed, even if somebody has the device open.
 */
static int __init waitqueues_init(void)
{
	int err;

	mythread = kthread_run(thread_runner, NULL, MAINTHREAD_N);
	if (IS_ERR(mythread))
		return PTR_ERR(mythread);

	err = misc_register(&miscdev);
	if (err)
		goto stop_thread;

	return 0;

stop_thread:
	kthread_stop(mythread);
	return err;
}

/*
 * Undoes waitqueues_init() in reverse order. There are no writers any more:
 * .owner keeps the module loaded while the device is open.
 *
 * Messages may still be queued after kthread_stop(). A thread that is stopped
 * before it first ran never enters thread_runner(), and one that is stopped
 * just after it found the queue empty does not look again. The last call
 * consumes what they left.
 */
static void __exit waitqueues_exit(void)
{
	misc_deregister(&miscdev);
	kthread_stop(mythread);
	consume_messages();
}

module_init(waitqueues_init);
module_exit(waitqueues_exit);

MODULE_DESCRIPTION("Write-only device whose messages a kernel thread consumes");
MODULE_AUTHOR("The eudyptula authors");
MODULE_LICENSE("GPL");
