#!/bin/busybox sh
# What every guest begins with: a shell's tools, the drivers, a network if there is one.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp XDG_RUNTIME_DIR=/run
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/virtio-ports
for module in /modules/*; do insmod "$module" || echo "init: $module was not loaded"; done
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
    ip link set eth0 up
    ip addr add 10.0.2.15/24 dev eth0
fi

# Waits for a port, and gives it its name, as udev would.
port() {
    until [ -e "/dev/virtio-ports/$1" ]; do
        for device in /sys/class/virtio-ports/*; do
            [ "$(cat "$device/name" 2>/dev/null)" = "$1" ] && ln -s "/dev/${device##*/}" "/dev/virtio-ports/$1"
        done
        [ -e "/dev/virtio-ports/$1" ] || sleep 0.1
    done
}

echo "init: up after $(cut -d ' ' -f 1 /proc/uptime) s"
