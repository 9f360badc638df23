#!/bin/sh
# Install the Debian packages of the services that OCPS is tested with.
set -eu

packages="redis-server postgresql iproute2 openssl munge slurmctld slurmd slurm-client slurm-wlm-basic-plugins
    chromium fonts-dejavu-core systemd"

missing=""
for package in $packages; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -z "$missing" ] && { echo "All services are installed"; exit 0; }
if [ "$(id -u)" != 0 ]; then
    echo "make services: run as root, or install:$missing" >&2
    exit 1
fi
apt-get update -qq
# The packages' own servers are not wanted: tests start theirs.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
echo "Installed$missing"
