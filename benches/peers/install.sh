#!/bin/sh
# Installs and builds what the benchmarks compare with. It can be run again at any time; what cannot
# be had is skipped with a word, and only a failure of the Rust part is a failure.
#
# Nothing is left running: a policy-rc.d that says 101 keeps the packages from starting their
# services while they are installed, and where there is systemd, those that this script has
# installed are disabled, so that they do not come with the next boot either.
set -u
cd "$(dirname "$0")" || exit 1

skipped() { echo "skipped: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

updated=
apt_install() { # package
    have apt-get || { skipped "$1: no apt-get here"; return 1; }
    [ "$(id -u)" = 0 ] || { skipped "$1: not root"; return 1; }
    [ -n "$updated" ] || apt-get -qq update || true
    updated=yes
    policy=/usr/sbin/policy-rc.d
    ours=
    if [ ! -e "$policy" ]; then
        ours=yes
        trap 'rm -f "$policy"' EXIT
        trap 'exit 1' INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$1" >/dev/null
    status=$?
    if [ -n "$ours" ]; then
        rm -f "$policy"
        trap - EXIT INT TERM
    fi
    [ "$status" = 0 ] || skipped "$1: apt-get failed"
    return "$status"
}

for server in redis-server beanstalkd; do
    have "$server" && continue
    apt_install "$server" || continue
    if [ -d /run/systemd/system ]; then
        systemctl disable --now "$server" >/dev/null 2>&1
    fi
done

# Its service, too, is only to be there when a benchmark starts it.
if ! have nginx && ! [ -x /usr/sbin/nginx ]; then
    apt_install nginx-light && [ -d /run/systemd/system ] && systemctl disable --now nginx >/dev/null 2>&1
fi
[ -e /usr/lib/nginx/modules/ngx_nchan_module.so ] || apt_install libnginx-mod-nchan
have wrk || apt_install wrk
if ! have haproxy && ! [ -x /usr/sbin/haproxy ]; then
    apt_install haproxy && [ -d /run/systemd/system ] && systemctl disable --now haproxy >/dev/null 2>&1
fi
have node || apt_install nodejs

if have python3; then
    # Without python3-venv, Debian makes half a venv, one without pip.
    has_pip() { venv/bin/python -m pip --version >/dev/null 2>&1; }
    has_pip || python3 -m venv --clear venv >/dev/null ||
        { apt_install python3-venv && python3 -m venv --clear venv; } || skipped "Twisted: no venv"
    if has_pip; then
        venv/bin/python -m pip install --quiet --disable-pip-version-check -r twisted/requirements.txt ||
            skipped "Twisted: pip failed"
    fi
else
    skipped "Twisted: no python3"
fi

cargo build --release --locked --target-dir target
