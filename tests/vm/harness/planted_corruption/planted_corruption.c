// SPDX-License-Identifier: GPL-2.0-only
/*
 * A module that overwrites one of its own pointers, and follows it much later.
 * What is written to /sys/kernel/debug/planted_corruption says which: "label"
 * or "use". Nothing of the crash tells who has done it.
 */

#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/uaccess.h>

struct target {
	int value;
};

static struct target target = { .value = 1 };

static struct {
	char label[16];
	struct target *target;
} record = { .target = &target };

static struct dentry *control;

static noinline void set_label(char letter, size_t length)
{
	size_t i;

	for (i = 0; i < length; i++) {
		/* More than the label has: the test looks for this line. */
		((volatile char *)record.label)[i] = letter; /* the mistake */
	}
}

static noinline int use_target(void)
{
	return READ_ONCE(record.target)->value;
}

static ssize_t control_write(struct file *file, const char __user *buf,
			     size_t count, loff_t *ppos)
{
	char word[16] = "";

	if (count >= sizeof(word) || copy_from_user(word, buf, count))
		return -EINVAL;
	strim(word);
	if (!strcmp(word, "label"))
		set_label('A', sizeof(record));
	else if (!strcmp(word, "use"))
		pr_info("the target is %d\n", use_target());
	return count;
}

static const struct file_operations control_fops = {
	.owner = THIS_MODULE,
	.write = control_write,
};

static int __init planted_init(void)
{
	control = debugfs_create_file("planted_corruption", 0200, NULL, NULL, &control_fops);
	return 0;
}

static void __exit planted_exit(void)
{
	debugfs_remove(control);
}

module_init(planted_init);
module_exit(planted_exit);

MODULE_AUTHOR("the harness");
MODULE_DESCRIPTION("A module that overwrites one of its own pointers");
MODULE_LICENSE("GPL");
