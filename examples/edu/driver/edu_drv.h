/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * What /dev/edu0 understands: pread() and pwrite() of the card's buffer of 4 KiB,
 * which the card moves by DMA, and a number's factorial modulo 2^32.
 */
#ifndef EDU_DRV_H
#define EDU_DRV_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define EDU_FACTORIAL	_IOWR('E', 0, __u32)

#endif
