// SPDX-License-Identifier: GPL-2.0-only
/*
 * Code that runs and code that does not, for tests/vm/harness/test_coverage.py. The words behind
 * a line say in which case it runs: that test reads them.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/moduleparam.h>

static int fail;
static int count;

static noinline void branch(int odd)
{
	if (odd)
		pr_info("odd\n"); /* runs: odd */
	else
		pr_info("even\n"); /* runs: even */
}

/* Nobody calls it unless the parameter is set, which no test does. */
static noinline void never(void)
{
	pr_info("never\n"); /* runs: never */
}

static int set(const char *text, const struct kernel_param *param)
{
	int error = kstrtoint(text, 0, &count);

	if (error) {
		pr_info("no number\n"); /* runs: word */
		return error;
	}
	if (count == 1234567)
		never();
	if (count < 0)
		panic("planted"); /* runs: negative */
	branch(count & 1); /* runs: odd, even */
	return 0;
}

static const struct kernel_param_ops ops = { .set = set };

module_param_cb(count, &ops, NULL, 0200);
module_param(fail, int, 0);

static int __init planted_covered_init(void)
{
	pr_info("hello\n"); /* runs: load, fail */
	if (fail) {
		pr_info("it fails\n"); /* runs: fail */
		return -ENODEV;
	}
	pr_info("it is there\n"); /* runs: load */
	return 0;
}

static void __exit planted_covered_exit(void)
{
	pr_info("bye\n"); /* runs: unload */
}

module_init(planted_covered_init);
module_exit(planted_covered_exit);

MODULE_DESCRIPTION("Code that runs and code that does not");
MODULE_LICENSE("GPL");
