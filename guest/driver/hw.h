/* SPDX-License-Identifier: GPL-2.0 */
/*
 * fifo_aio - the hardware's registers and structures in memory
 *
 * All of it is from the hardware manual, docs/hardware.md.
 */
#ifndef FIFO_HW_H
#define FIFO_HW_H

#include <linux/bits.h>
#include <linux/types.h>

#define FIFO_VENDOR			0x1234
#define FIFO_DEVICE			0xf1f0
#define FIFO_BAR			0
#define FIFO_BAR_SIZE			0x20000

/* Global registers. */
#define FIFO_ID				0x00
#define FIFO_ID_VALUE			0x4f464946
#define FIFO_VERSION			0x04
#define FIFO_VERSION_MAJOR(v)		((v) >> 16)
#define FIFO_VERSION_NOTIFY		0x00010001	/* the first that has NOTIFY */
#define FIFO_CAPS			0x08
#define FIFO_CAPS_CHANNELS(v)		((v) & 0xff)
#define FIFO_CAPS_RING_LOG(v)		((v) >> 8 & 0xff)
#define FIFO_CAPS_CHAIN_LOG(v)		((v) >> 24)
#define FIFO_MAX_LENGTH			0x0c
#define FIFO_CONTROL			0x10
#define FIFO_CONTROL_ENABLE		BIT(0)
#define FIFO_CONTROL_RESET		BIT(31)
#define FIFO_STATUS			0x14
#define FIFO_STATUS_READY		BIT(0)
#define FIFO_DEPTH			0x1c
#define FIFO_IRQ_CAUSE			0x20
#define FIFO_IRQ_ENABLE			0x24
#define FIFO_ERROR_CAUSE		0x28
#define FIFO_ERROR_PARITY		BIT(0)
#define FIFO_ERROR_ACCESS		BIT(1)
#define FIFO_ERROR_DMA			BIT(2)
#define FIFO_ERROR_DESCRIPTOR		BIT(3)
#define FIFO_ERROR_OVERRUN		BIT(4)
#define FIFO_ERROR_VECTOR		0x38

/* How long a soft reset may take, in us. The manual says 10; virtual machines can be late. */
#define FIFO_RESET_US			100000

/* Channel c. */
#define FIFO_CHANNEL(c)			(0x1000 + 0x1000 * (c))
#define FIFO_FILL			0x00
#define FIFO_CH_CONTROL			0x08
#define FIFO_CH_CONTROL_FLUSH		BIT(0)
#define FIFO_TX_BYTES			0x20
#define FIFO_RX_BYTES			0x28

/* Its rings. */
#define FIFO_TX				0x100
#define FIFO_RX				0x200
#define FIFO_RING_CONTROL		0x00
#define FIFO_RING_RUN			BIT(0)
#define FIFO_RING_RESET			BIT(31)
#define FIFO_RING_STATUS		0x04
#define FIFO_RING_STATE(v)		((v) & 0xff)
#define FIFO_RING_REASON(v)		((v) >> 8 & 0xff)
#define FIFO_REASON_COMPLETION		6
#define FIFO_REASON_NOT_MASTER		7
#define FIFO_STATE_STOPPED		0
#define FIFO_STATE_RUNNING		1
#define FIFO_STATE_DRAINING		2
#define FIFO_STATE_ERROR		3
#define FIFO_RING_BASE			0x08
#define FIFO_RING_SIZE			0x10
#define FIFO_RING_HEAD			0x14
#define FIFO_RING_TAIL			0x18
#define FIFO_COMP_BASE			0x20
#define FIFO_COMP_SIZE			0x28
#define FIFO_COMP_HEAD			0x2c
#define FIFO_COMP_TAIL			0x30
#define FIFO_COALESCE			0x34
#define FIFO_COALESCE_VALUE(n, us)	((us) << 16 | (n))
#define FIFO_THRESHOLD			0x38
#define FIFO_NOTIFY			0x3c
#define FIFO_ABORT			0x40
#define FIFO_ABORT_STATUS		0x48
#define FIFO_ABORT_PENDING		3
#define FIFO_ERROR_INDEX		0x4c
#define FIFO_VECTOR			0x50
#define FIFO_ERROR_ADDRESS		0x58

/* The doorbells of channel c. */
#define FIFO_DOORBELLS(c)		(0x10000 + 0x1000 * (c))
#define FIFO_TX_TAIL			0x00
#define FIFO_RX_TAIL			0x04
#define FIFO_TX_COMP_HEAD		0x08
#define FIFO_RX_COMP_HEAD		0x0c

#define FIFO_MAX_CHANNELS		8
#define FIFO_MAX_ENTRIES		4096
#define FIFO_MAX_VECTORS		(1 + 2 * FIFO_MAX_CHANNELS)

/**
 * struct fifo_descriptor - a buffer, or a piece of one
 * @address: for DMA
 * @length: in bytes, from 1 to MAX_LENGTH
 * @flags: FIFO_DESC_*
 * @cookie: the request's name
 * @zero: must be zero
 */
struct fifo_descriptor {
	__le64 address;
	__le32 length;
	__le32 flags;
	__le64 cookie;
	__le64 zero;
};

#define FIFO_DESC_MORE			BIT(0)
#define FIFO_DESC_INTERRUPT		BIT(1)

/**
 * struct fifo_completion - how a request ended
 * @cookie: its name
 * @done: bytes that were moved
 * @residual: bytes that were not
 * @status: FIFO_COMP_*
 * @head: of the descriptor ring: descriptors before it are the driver's
 * @phase: 1 in the first round of the ring, 0 in the second, and so on
 */
struct fifo_completion {
	__le64 cookie;
	__le64 done;
	__le64 residual;
	__le16 status;
	__le16 head;
	__le32 phase;
};

#define FIFO_COMP_OK			0
#define FIFO_COMP_ABORTED		1
#define FIFO_COMP_DESCRIPTOR		2
#define FIFO_COMP_DMA			3
#define FIFO_COMP_PARITY		4

#endif /* FIFO_HW_H */
