// SPDX-License-Identifier: GPL-2.0-only
/*
 * While this module is loaded, misc_register() fails with -ENOSPC. Tests use it
 * to see what a module does then.
 *
 * misc_register() creates its device with device_create_with_groups(). A kprobe
 * there redirects the call to no_device(), which takes the same arguments and
 * fails. So misc_register() itself runs and undoes what it has done so far. The
 * kernel logs nothing, as it would if two devices had the same name.
 */

#include <linux/device.h>
#include <linux/err.h>
#include <linux/kprobes.h>
#include <linux/module.h>

static struct device *no_device(const struct class *class, struct device *parent,
				dev_t devt, void *drvdata,
				const struct attribute_group **groups,
				const char *fmt, ...)
{
	return ERR_PTR(-ENOSPC);
}

static int go_elsewhere(struct kprobe *probe, struct pt_regs *regs)
{
	instruction_pointer_set(regs, (unsigned long)no_device);
	return 1;	/* the instruction pointer was set here */
}

/*
 * A kprobe with a post handler is never optimised into a jump. An optimised one
 * could not change the instruction pointer.
 */
static void after(struct kprobe *probe, struct pt_regs *regs, unsigned long flags)
{
}

static struct kprobe probe = {
	.symbol_name = "device_create_with_groups",
	.pre_handler = go_elsewhere,
	.post_handler = after,
};

static int __init no_misc_init(void)
{
	return register_kprobe(&probe);
}

static void __exit no_misc_exit(void)
{
	unregister_kprobe(&probe);
}

module_init(no_misc_init);
module_exit(no_misc_exit);

MODULE_DESCRIPTION("Makes misc_register() fail");
MODULE_LICENSE("GPL");
