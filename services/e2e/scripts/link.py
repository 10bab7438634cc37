"""A bad link between this machine and a network namespace of its own.

Two TUN devices and this process between them: delay, jitter, loss, a rate with a queue.
Usage: link.py NAMESPACE. Says "ready" when the link is up; then each line of standard input
is a JSON object with what the directions are like from now on, for example
{"down": {"delay": 50, "jitter": 10, "loss": 0.02, "rate": 500}, "up": {}}, in milliseconds,
a share of packets and kbit/s. Ends, and takes everything away, when standard input does.
"""

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time

IP = os.environ.get("HEADWATER_IP", "ip")
HERE, THERE = "10.231.7.1", "10.231.7.2"
# What a home router holds: above it packets are dropped.
QUEUE_SECONDS = 0.3
SET_INTERFACE, TUN, NO_PACKET_INFO = 0x400454CA, 0x0001, 0x1000
libc = ctypes.CDLL(None, use_errno=True)


def tun(name):
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, SET_INTERFACE, struct.pack("16sH", name.encode(), TUN | NO_PACKET_INFO))
    return device


def enter(namespace):
    if libc.setns(namespace, 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def ip(*arguments):
    subprocess.check_call([IP, *arguments])


class Direction:
    """Packets on their way to a device."""

    def __init__(self, to):
        self.to = to
        self.conditions = {}
        self.waiting = []
        self.number = 0
        self.free_at = 0.0
        self.dropped = 0

    def take(self, packet, now):
        conditions = self.conditions
        if random.random() < conditions.get("loss", 0):
            return
        at = now
        if rate := conditions.get("rate"):
            at = max(now, self.free_at)
            if at - now > QUEUE_SECONDS:
                self.dropped += 1
                return
            at += len(packet) * 8 / (rate * 1000)
            self.free_at = at
        jitter = conditions.get("jitter", 0) / 1000
        at += conditions.get("delay", 0) / 1000 + random.uniform(0, jitter)
        self.number += 1
        heapq.heappush(self.waiting, (at, self.number, packet))

    def release(self, now):
        while self.waiting and self.waiting[0][0] <= now:
            packet = heapq.heappop(self.waiting)[2]
            try:
                os.write(self.to, packet)
            except OSError:
                self.dropped += 1


def run(here, there):
    down, up = Direction(there), Direction(here)
    sources = {here: down, there: up}
    line = b""
    while True:
        now = time.monotonic()
        due = min((direction.waiting[0][0] for direction in (down, up) if direction.waiting), default=now + 0.05)
        for source in select.select([here, there, 0], [], [], max(0.0, min(due - now, 0.05)))[0]:
            if source == 0:
                read = os.read(0, 4096)
                if not read:
                    return
                *lines, line = (line + read).split(b"\n")
                for text in lines:
                    conditions = json.loads(text)
                    down.conditions, up.conditions = conditions.get("down", {}), conditions.get("up", {})
                continue
            # A bounded share of what waits, so that nothing else starves.
            for _ in range(256):
                try:
                    packet = os.read(source, 65535)
                except BlockingIOError:
                    break
                sources[source].take(packet, time.monotonic())
        for direction in (down, up):
            direction.release(time.monotonic())


def main():
    namespace = sys.argv[1]
    ip("netns", "add", namespace)
    try:
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        away = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        here = tun("hwlink0")
        enter(away)
        there = tun("hwlink1")
        enter(home)
        ip("addr", "add", HERE, "peer", THERE, "dev", "hwlink0")
        ip("link", "set", "hwlink0", "up")
        ip("-n", namespace, "addr", "add", THERE, "peer", HERE, "dev", "hwlink1")
        ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", namespace, "link", "set", "hwlink1", "up")
        print("ready", flush=True)
        run(here, there)
    finally:
        subprocess.call([IP, "netns", "del", namespace])


main()
