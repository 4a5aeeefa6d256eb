// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/eudyptula: anyone may write messages to it, and a kernel thread consumes
 * them. An example of a misc device, wait queues and a kernel thread. The file
 * ABI says what users see of it.
 *
 * What becomes of a message:
 *
 *	COPIED --1--> QUEUED --5--> CONSUMED
 *	  |             ^
 *	  2             3
 *	  |             |
 *	  +---> WAITING-+
 *	           |
 *	           +----4--> DROPPED
 *
 * 1: there is room: the writer appends it and wakes the thread (wee_wait)
 * 2: there is no room: the writer sleeps until there is some (room_wait)
 * 3: the thread made room and woke the writers, and this one got there in time
 * 4: a signal came first; or, without sleeping, the file is O_NONBLOCK
 * 5: the thread traced and counted it
 *
 * A message is COPIED from user space before anything else, because that can
 * fail, and can take as long as a user likes (userfaultfd); meanwhile it holds
 * nothing that others need. Memory is bounded: one message for each writer that
 * waits, and 64 KiB of them in the queue, which is 4 MiB with the headers if
 * every message is a single byte. All of it is charged to the writers' cgroups.
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

/* A pipe's own numbers: PIPE_BUF, and what a pipe holds by default. */
#define MESSAGE_MAX	4096
#define QUEUE_SIZE	65536

/* How much of a message the log shows, in hexadecimal: as much as %ph prints. */
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
 * sleeps under it, and no interrupt takes it. No barriers are needed besides:
 * who sleeps joins a wait queue first and looks second, who wakes changes
 * something first and wakes second, and all of that happens under locks.
 */
static DEFINE_SPINLOCK(queue_lock);
static LIST_HEAD(queue);	/* of struct message, oldest first */
static u64 pending;		/* bytes in the queue */
static u64 accepted;		/* messages that ever entered the queue */
static u64 consumed;		/* messages that left it */
static u64 blocked;		/* writers that had to wait for room */

/* Valid until kthread_stop(), because thread_runner() returns no sooner. */
static struct task_struct *mythread;

static bool queue_has_room(unsigned int length)
{
	lockdep_assert_held(&queue_lock);
	return length <= QUEUE_SIZE - pending;
}

/*
 * Queue @msg, wholly or not at all. Until this returns true the message is the
 * caller's; from then on it is the thread's, which may have freed it already.
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
	/* Under the lock, so that no trace shows it consumed before queued. */
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
 * Writers are woken when room for the largest message appears, which is also
 * when poll() begins to say EPOLLOUT. None is forgotten: a writer sleeps only
 * if it saw less room than that after it had joined room_wait, and the thread
 * does not rest before the queue is empty.
 *
 * All of them are woken, not one of them (an "exclusive" wait). That one might
 * not use the room: because its message is larger than what somebody else left,
 * because it only watches (EPOLLEXCLUSIVE), or because it gets no CPU. The
 * others would then sleep beside an empty queue.
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
 * Consume until the queue is empty. There is only one consumer, the thread and
 * after it waitqueues_exit(), so the oldest message stays while it is read
 * without the lock. It is counted last: what is counted is also in the trace.
 */
static void consume_messages(void)
{
	struct message *msg;

	while ((msg = oldest_message())) {
		trace_message_consumed(msg->sequence, msg->length,
				       ktime_get_ns() - msg->queued_ns);
		/* Users choose the bytes and how many: no byte as it is, cut, limit. */
		pr_debug_ratelimited("message %llu, %u bytes: %*ph\n",
				     msg->sequence, msg->length,
				     min_t(int, msg->length, DEBUG_MAX),
				     msg->text);
		retire_message(msg);
		cond_resched();
	}
}

/*
 * Returns only when told to stop. The wait is interruptible because the other
 * kind counts as load, not because of signals: a kernel thread ignores them.
 * Its result says nothing new: newer kernels make it an error if kthread_stop()
 * ends it, but the loop asks for that anyway.
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
	/* Mode 0222 keeps users from opening it for reading, this root too. */
	if (file->f_mode & FMODE_READ)
		return -EACCES;

	/* No position, and so no lock that makes writers wait for each other. */
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

/* Sleep until @msg is queued. After an error it is still the caller's. */
static int wait_for_room(struct message *msg)
{
	spin_lock(&queue_lock);
	blocked++;
	spin_unlock(&queue_lock);

	/*
	 * The condition itself queues the message. It is tried after joining
	 * room_wait, so that no wake-up is lost; again after each wake-up, since
	 * others may have taken the room; and it ends the wait when it is true,
	 * signal or not, so that no message is both queued and refused.
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

	/* First join, then look: what changes in between wakes us. */
	poll_wait(file, &room_wait, wait);

	spin_lock(&queue_lock);
	has_room = queue_has_room(MESSAGE_MAX);
	spin_unlock(&queue_lock);

	return has_room ? EPOLLOUT | EPOLLWRNORM : 0;
}

/* No .read: driver_open() refuses. No .llseek: stream_open() forbids it. */
static const struct file_operations mfops = {
	.owner = THIS_MODULE,	/* no rmmod while the device is open */
	.open = driver_open,
	.write = driver_write,
	.poll = driver_poll,
};

static ssize_t counter_show(const u64 *counter, char *buf)
{
	u64 value;

	/* A 32 bit CPU reads 64 bits in two halves. */
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

/* Mode 0444: how much is written is no secret, and nobody sets it. */
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
	.groups = eudyptula_groups,	/* there before udev hears of the device */
	.mode = 0222,			/* anyone may write, no one may read */
};

/*
 * The device comes last: once it is there anybody may use it, so everything
 * else must be ready, and nothing that can fail may follow.
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
 * The mirror image. No file is open any more, see .owner, so there are no
 * writers. A thread that is told to stop before it first ran never enters
 * thread_runner(), and one that is told so just after it found the queue empty
 * does not look again; what is in the queue then is consumed here.
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
