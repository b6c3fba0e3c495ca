// SPDX-License-Identifier: MIT
/* fifo_io - reads, writes and waiting on /dev/fifoN by the calls that block */
#define _GNU_SOURCE
#include "fifo.h"

static int one_byte(void)
{
	uint8_t byte;
	int fd = fifo_open(0, O_RDWR);

	if (fd < 0 || fifo_round_trip(fd, &byte, 1, 1))
		return KTAP_FAIL;
	return KTAP_PASS;
}

int main(int argc, char **argv)
{
	static const struct ktap_check checks[] = {
		{ "one_byte", one_byte },
	};

	return fifo_run(checks, FIFO_ARRAY_SIZE(checks), argc, argv);
}
