// SPDX-License-Identifier: GPL-2.0-only
/*
 * A module that is broken on purpose, in the way that is written to
 * /sys/kernel/debug/planted: each word below. The harness has to notice.
 */

#include <linux/bug.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/init.h>
#include <linux/irqflags.h>
#include <linux/kthread.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/reboot.h>
#include <linux/string.h>
#include <linux/uaccess.h>

static struct dentry *control;
static bool forget;	/* leave the debugfs file behind */

static noinline void planted_warn(void)
{
	WARN_ON(1);
}

static noinline void planted_oops(void)
{
	/* Volatile, or the compiler would trap on its own terms. */
	*(volatile int *)8 = 0;
}

static noinline void planted_panic(void)
{
	panic("planted");
}

static noinline void planted_spin(void)
{
	local_irq_disable();
	for (;;)
		cpu_relax();
}

static noinline void planted_sleep(void)
{
	/* Not interruptible: no signal ends it. */
	for (;;)
		ssleep(1000);
}

static noinline void planted_flood(void)
{
	int i;

	for (i = 0; i < 20000; i++)
		pr_info("planted: line %d of a flood\n", i);
}

static ssize_t control_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)
{
	char word[16] = "";

	if (count >= sizeof(word))
		return -EINVAL;
	if (copy_from_user(word, buf, count))
		return -EFAULT;
	strim(word);
	if (!strcmp(word, "warn"))
		planted_warn();
	else if (!strcmp(word, "oops"))
		planted_oops();
	else if (!strcmp(word, "panic"))
		planted_panic();
	else if (!strcmp(word, "spin"))
		planted_spin();
	else if (!strcmp(word, "sleep"))
		planted_sleep();
	else if (!strcmp(word, "flood"))
		planted_flood();
	else if (!strcmp(word, "reboot"))
		emergency_restart();
	else if (!strcmp(word, "forget"))
		forget = true;
	else
		return -EINVAL;
	return count;
}

static const struct file_operations control_fops = {
	.owner = THIS_MODULE,
	.write = control_write,
};

static int __init planted_init(void)
{
	control = debugfs_create_file("planted", 0200, NULL, NULL, &control_fops);
	return PTR_ERR_OR_ZERO(control);
}

static void __exit planted_exit(void)
{
	if (!forget)
		debugfs_remove(control);
}

module_init(planted_init);
module_exit(planted_exit);

MODULE_DESCRIPTION("Broken on purpose, to see that the harness notices");
MODULE_AUTHOR("The eudyptula authors");
MODULE_LICENSE("GPL");
