/// The small root file system of the `linux` image: busybox, and an init that gives a shell on the console.
///
/// Not compressed: unpacking costs a guest more than mapping costs the host.
enum SmallRoot {
    /// - Parameters:
    ///   - busybox: a statically linked busybox.
    ///   - applets: paths of its applets without a leading slash, as `busybox --list-full` prints them.
    /// - Returns: a newc archive.
    static func archive(busybox: [UInt8], applets: [String]) -> [UInt8] {
        var archive = CPIOArchive()
        for directory in directories { archive.addDirectory(directory) }
        archive.addDirectory("root", permissions: 0o700)
        archive.addDirectory("tmp", permissions: 0o1777)
        // The kernel opens it before any of our code runs. Source: [LINUX-DEVICES "5 char"].
        archive.addCharacterDevice("dev/console", major: 5, minor: 1, permissions: 0o600)
        archive.addFile("init", Array(initScript.utf8), permissions: 0o755)
        for (name, text) in parts { archive.addFile("lib/windhover/\(name)", Array(text.utf8), permissions: 0o755) }
        for (path, text) in configuration { archive.addFile(path, Array(text.utf8)) }
        archive.addFile("bin/busybox", busybox, permissions: 0o755)
        for applet in applets where isApplet(applet) { archive.addLink(applet, to: "/bin/busybox") }
        return archive.finished()
    }

    static let directories = [
        "bin", "dev", "etc", "lib", "lib/windhover", "mnt", "proc", "run", "sbin", "sys", "usr", "usr/bin", "usr/sbin", "var",
    ]

    static let configuration = [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/hostname", "windhover\n"),
        ("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 windhover\n"),
        ("etc/profile", profile),
    ]

    /// One name in a directory that is there, and not busybox itself or init.
    static func isApplet(_ path: String) -> Bool {
        guard let slash = path.lastIndex(of: "/") else { return false }
        let name = path[path.index(after: slash)...]
        return ["bin", "sbin", "usr/bin", "usr/sbin"].contains(path[..<slash]) && !name.isEmpty
            && path != "bin/busybox" && name != "init"
    }

    /// For interactive shells. Without -f the three applets signal PID 1, which hears it when the shell ends; a person who
    /// types one of them wants it now.
    static let profile = """
        export PS1='windhover:\\w# '
        alias poweroff='poweroff -f' halt='halt -f' reboot='reboot -f'
        alias ll='ls -l'

        """

    /// What init reads when it is needed, by its name in /lib/windhover: a guest without devices or disks pays for none of it.
    static let parts = [
        ("modules", modulesScript), ("root", rootScript), ("network", networkScript), ("lease", leaseScript), ("ports", portsScript),
    ]

    /// PID 1. It reads these words of the kernel's command line:
    ///
    /// - `windhover.rows=N` and `windhover.cols=N`: the terminal's size, which a serial line cannot tell.
    /// - `windhover.exec=BASE64`: a script to run in place of the shell; no other system is started then.
    /// - `windhover.root=DEVICE`, `LABEL=TEXT`, `UUID=TEXT` or `auto`, `windhover.rootflags=OPTIONS`, `windhover.init=PATH`: the
    ///   system on a disk that takes this one's place.
    /// - `windhover.ip=dhcp`, `off`, or `ADDRESS/BITS[,GATEWAY[,DNS]]`: what eth0 is given.
    /// - `windhover.ports=N`: ports of the console, each of which gets its name in /dev/virtio-ports.
    /// - `windhover.modules=A,B`: modules to load beside those of the hardware.
    ///
    /// When the shell or script ends, the machine is powered off.
    static let initScript = """
        #!/bin/sh
        export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=linux ENV=/etc/profile
        mount -t proc proc /proc
        mount -t sysfs sysfs /sys
        mount -t devtmpfs devtmpfs /dev

        set -f
        rows= cols= script= root= rootflags= init=/sbin/init ip=dhcp modules= ports=
        for word in $(cat /proc/cmdline); do
            case $word in
                windhover.rows=*) rows=${word#*=} ;;
                windhover.cols=*) cols=${word#*=} ;;
                windhover.exec=*) script=${word#*=} ;;
                windhover.root=*) root=${word#*=} ;;
                windhover.rootflags=*) rootflags=${word#*=} ;;
                windhover.init=*) init=${word#*=} ;;
                windhover.ip=*) ip=${word#*=} ;;
                windhover.modules=*) modules=${word#*=} ;;
                windhover.ports=*) ports=${word#*=} ;;
            esac
        done
        set +f

        [ -d /lib/modules ] && . /lib/windhover/modules
        [ -n "$root" ] && [ -z "$script" ] && . /lib/windhover/root

        [ -n "$ports" ] && . /lib/windhover/ports
        mkdir -p /dev/pts /dev/shm
        mount -t devpts devpts /dev/pts
        mount -t tmpfs tmpfs /dev/shm
        mount -t tmpfs tmpfs /run
        hostname windhover
        ip link set lo up
        [ -e /sys/class/net/eth0 ] && . /lib/windhover/network

        # What poweroff, halt and reboot without -f send; heard when the foreground program ends.
        trap 'poweroff -f' USR2
        trap 'halt -f' USR1
        trap 'reboot -f' TERM

        [ -n "$rows" ] && stty rows "$rows" 2>/dev/null
        [ -n "$cols" ] && stty cols "$cols" 2>/dev/null

        cd /root
        # In a session of its own with the console as controlling terminal, so that Ctrl-C and job control work. The end of
        # a session's leader hangs up its terminal, with what is not out yet: so stty, which waits for it, comes before.
        if [ -n "$script" ]; then
            echo "$script" | base64 -d > /run/exec
            setsid cttyhack sh -c 'sh /run/exec; stty echo'
        else
            echo
            echo "Linux $(uname -r) in Windhover, $(nproc) CPU(s), $(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB"
            echo "exit or poweroff ends it; Ctrl-A x leaves at once, Ctrl-A ? helps"
            echo
            setsid cttyhack sh -c 'sh -l; stty echo'
        fi
        status=$?
        [ "$status" -gt 128 ] && echo "init: signal $((status - 128)) ended the session"
        # Setting a terminal waits until all of its output is out, which -f would cut off.
        stty echo
        poweroff -f

        """
}
