// SPDX-License-Identifier: GPL-2.0-only
/*
 * A module that is broken on purpose, and late: what is written to
 * /sys/kernel/debug/planted_late, a word of the table below, comes only when
 * whoever wrote it has long been told that all is well. Beside each is one
 * that looks alike and is right.
 */

#include <linux/bug.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/mm_types.h>
#include <linux/module.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

static struct dentry *control;
static struct task_struct *thread;
static DECLARE_WAIT_QUEUE_HEAD(queue);
static bool wrong;		/* whether what comes late is a fault */

static void late_work_func(struct work_struct *work)
{
	WARN_ON(wrong);
}

static DECLARE_DELAYED_WORK(late_work, late_work_func);

static int late_oops(void *unused)
{
	ssleep(2);
	if (wrong)
		*(volatile int *)8 = 0;
	wait_event_interruptible(queue, kthread_should_stop());
	return 0;
}

/* Looks a hundred times a second whether it is to stop, rather than to be woken for that. */
static int poll(void *unused)
{
	while (!kthread_should_stop())
		msleep(10);
	return 0;
}

static int sleep(void *unused)
{
	wait_event_interruptible(queue, kthread_should_stop());
	return 0;
}

/* A wait that no signal ends, and nobody. */
static int hang(void *unused)
{
	wait_event(queue, false);
	return 0;
}

static int begin(int (*func)(void *unused), const char *name)
{
	if (thread)
		return -EBUSY;
	thread = kthread_run(func, NULL, "%s", name);
	if (IS_ERR(thread)) {
		int err = PTR_ERR(thread);

		thread = NULL;
		return err;
	}
	return 0;
}

static int provoke(const char *word)
{
	wrong = !strcmp(word, "warn") || !strcmp(word, "oops");
	if (!strcmp(word, "warn") || !strcmp(word, "work")) {
		schedule_delayed_work(&late_work, msecs_to_jiffies(90 * MSEC_PER_SEC));
		return 0;
	}
	if (!strcmp(word, "oops") || !strcmp(word, "wait"))
		return begin(late_oops, "planted_late");
	if (!strcmp(word, "poll"))
		return begin(poll, "planted_poll");
	if (!strcmp(word, "hang"))
		return begin(hang, "planted_hang");
	if (!strcmp(word, "sleep"))
		return begin(sleep, "planted_sleep");
	/* A lock that whoever calls needs himself, at the latest when he ends. */
	if (!strcmp(word, "lock")) {
		down_write(&current->mm->mmap_lock);
		return 0;
	}
	if (!strcmp(word, "killable"))
		return wait_event_killable(queue, false);
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

static int __init planted_late_init(void)
{
	control = debugfs_create_file("planted_late", 0200, NULL, NULL, &control_fops);
	return PTR_ERR_OR_ZERO(control);
}

static void __exit planted_late_exit(void)
{
	debugfs_remove(control);
	cancel_delayed_work_sync(&late_work);
	if (thread)
		kthread_stop(thread);
}

module_init(planted_late_init);
module_exit(planted_late_exit);

MODULE_DESCRIPTION("Broken on purpose, and late, to see that the harness notices");
MODULE_AUTHOR("The eudyptula authors");
MODULE_LICENSE("GPL");
