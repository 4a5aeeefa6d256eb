// SPDX-License-Identifier: GPL-2.0-only
/*
 * Takes one name or number that another module is going to ask the kernel for,
 * so that a test sees what that module does when it is refused. What is to be
 * taken are parameters.
 */

#include <linux/debugfs.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/kobject.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/proc_fs.h>

static char *misc;
module_param(misc, charp, 0);
MODULE_PARM_DESC(misc, "name of a misc device");

static char *class;
module_param(class, charp, 0);
MODULE_PARM_DESC(class, "name of a device class");

static uint major;
module_param(major, uint, 0);
MODULE_PARM_DESC(major, "major number for character devices");

static char *proc;
module_param(proc, charp, 0);
MODULE_PARM_DESC(proc, "name in /proc");

static char *debug;
module_param(debug, charp, 0);
MODULE_PARM_DESC(debug, "name in debugfs");

static char *sysfs;
module_param(sysfs, charp, 0);
MODULE_PARM_DESC(sysfs, "name in /sys/kernel");

#define MINORS	256

static const struct file_operations none = {
	.owner = THIS_MODULE,
};

/* The name is taken, and the node that goes with it is not there. */
static struct miscdevice miscdev = {
	.minor = MISC_DYNAMIC_MINOR,
	.nodename = "taken",
	.fops = &none,
};

static struct class taken_class;
static struct dentry *folder;
static struct kobject *object;

static int __init taken_init(void)
{
	int err = 0;

	if (misc) {
		miscdev.name = misc;
		err = misc_register(&miscdev);
	} else if (class) {
		taken_class.name = class;
		err = class_register(&taken_class);
	} else if (major) {
		err = register_chrdev_region(MKDEV(major, 0), MINORS, "taken");
	} else if (proc) {
		err = proc_mkdir(proc, NULL) ? 0 : -EEXIST;
	} else if (debug) {
		folder = debugfs_create_dir(debug, NULL);
		err = PTR_ERR_OR_ZERO(folder);
	} else if (sysfs) {
		object = kobject_create_and_add(sysfs, kernel_kobj);
		err = object ? 0 : -EEXIST;
	}
	return err;
}

static void __exit taken_exit(void)
{
	kobject_put(object);
	debugfs_remove(folder);
	/* By its name: the module that wanted it may have removed it. */
	if (proc)
		remove_proc_subtree(proc, NULL);
	if (major)
		unregister_chrdev_region(MKDEV(major, 0), MINORS);
	if (class)
		class_unregister(&taken_class);
	if (misc)
		misc_deregister(&miscdev);
}

module_init(taken_init);
module_exit(taken_exit);

MODULE_DESCRIPTION("Takes a name that another module is going to ask for");
MODULE_LICENSE("GPL");
