// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver for QEMU's device "edu" (its docs/specs/edu.txt), which computes
 * factorials. A number that is written to /dev/planted_edu is given to the
 * device, and what comes of it is read there. Without the device it does not
 * load.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/io.h>
#include <linux/iopoll.h>
#include <linux/kernel.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>

#define IDENTITY	0x00
#define IDENTITY_MASK	0xff
#define IDENTITY_EDU	0xed
#define FACTORIAL	0x08
#define STATUS		0x20
#define COMPUTING	BIT(0)

/* A thread of QEMU's computes. On a busy host it may have to wait. */
#define POLL_US		100
#define LIMIT_US	(60 * USEC_PER_SEC)

static DEFINE_MUTEX(lock);
static void __iomem *registers;	/* NULL where there is no device (any more) */

static ssize_t compute(struct file *file, const char __user *from, size_t count, loff_t *pos)
{
	u32 number, status;
	int error;

	error = kstrtou32_from_user(from, count, 0, &number);
	if (error)
		return error;
	error = mutex_lock_interruptible(&lock);
	if (error)
		return error;
	error = -ENODEV;
	if (registers) {
		iowrite32(number, registers + FACTORIAL);
		error = readl_poll_timeout(registers + STATUS, status, !(status & COMPUTING),
					   POLL_US, LIMIT_US);
	}
	mutex_unlock(&lock);
	return error ? error : count;
}

static ssize_t show(struct file *file, char __user *to, size_t count, loff_t *pos)
{
	char text[16];
	int length;

	if (mutex_lock_interruptible(&lock))
		return -ERESTARTSYS;
	length = registers ? scnprintf(text, sizeof(text), "%u\n",
				       ioread32(registers + FACTORIAL)) : -ENODEV;
	mutex_unlock(&lock);
	return length < 0 ? length : simple_read_from_buffer(to, count, pos, text, length);
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.read = show,
	.write = compute,
	.llseek = default_llseek,
};

static struct miscdevice node = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "planted_edu",
	.fops = &operations,
};

static void let_go(struct pci_dev *device)
{
	mutex_lock(&lock);
	pci_iounmap(device, registers);
	registers = NULL;
	mutex_unlock(&lock);
	pci_release_regions(device);
	pci_disable_device(device);
}

static int probe(struct pci_dev *device, const struct pci_device_id *id)
{
	int error;

	if (registers)
		return -EBUSY;	/* one is enough */
	error = pci_enable_device(device);
	if (error)
		return error;
	error = pci_request_regions(device, "planted_edu");
	if (error)
		goto disable;
	registers = pci_iomap(device, 0, 0);
	error = -ENOMEM;
	if (!registers)
		goto release;
	error = -ENODEV;
	if ((ioread32(registers + IDENTITY) & IDENTITY_MASK) == IDENTITY_EDU)
		error = misc_register(&node);
	if (error)
		let_go(device);
	return error;

release:
	pci_release_regions(device);
disable:
	pci_disable_device(device);
	return error;
}

static void remove(struct pci_dev *device)
{
	misc_deregister(&node);
	let_go(device);
}

static const struct pci_device_id ids[] = {
	{ PCI_DEVICE(0x1234, 0x11e8) },
	{}
};
MODULE_DEVICE_TABLE(pci, ids);

static struct pci_driver driver = {
	.name = "planted_edu",
	.id_table = ids,
	.probe = probe,
	.remove = remove,
	.driver.probe_type = PROBE_FORCE_SYNCHRONOUS,
};

static int __init planted_edu_init(void)
{
	int error = pci_register_driver(&driver);

	if (!error && !registers) {
		pci_unregister_driver(&driver);
		error = -ENODEV;
	}
	return error;
}
module_init(planted_edu_init);

static void __exit planted_edu_exit(void)
{
	pci_unregister_driver(&driver);
}
module_exit(planted_edu_exit);

MODULE_DESCRIPTION("Computes factorials with QEMU's device edu");
MODULE_LICENSE("GPL");
