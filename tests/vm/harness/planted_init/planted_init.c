// SPDX-License-Identifier: GPL-2.0-only
/*
 * A healthy module all of whose functions are __init or __exit, as the first
 * ones in many books are. It has no .text section.
 */
#include <linux/init.h>
#include <linux/module.h>

static int __init planted_init(void)
{
	pr_info("hello\n");
	return 0;
}

static void __exit planted_exit(void)
{
	pr_info("bye\n");
}

module_init(planted_init);
module_exit(planted_exit);

MODULE_DESCRIPTION("No function outlives init, but exit");
MODULE_LICENSE("GPL");
