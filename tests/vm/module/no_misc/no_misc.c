// SPDX-License-Identifier: GPL-2.0-only
/*
 * While this module is loaded no misc device can be registered: whoever tries
 * gets -ENOSPC. For the tests of what a module does then.
 *
 * A probe on the function with which misc_register() creates the device goes
 * on in another one with the same arguments, which only fails. So misc_register()
 * itself runs, and undoes what it has done. Nothing is logged, as it would be
 * if two devices had the same name.
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
	return 1;	/* the instruction pointer is as it should be */
}

/* With this, the probe is never turned into a jump, which could not do that. */
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
