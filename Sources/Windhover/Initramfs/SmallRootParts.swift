/// What the small root's init reads when it is needed. Its variables are theirs: `root`, `rootflags`, `init`, `ip`, `modules`,
/// `ports`, `script`.
extension SmallRoot {
    /// Loads the drivers of the hardware that is there, by the aliases that its buses tell.
    static let modulesScript = """
        # The bridges first: what lies behind them shows itself when they are in.
        bridges=
        for file in /sys/bus/platform/devices/LNRO0005:*/modalias /sys/bus/pci/devices/*/modalias; do
            [ -e "$file" ] || continue
            read -r alias < "$file"
            case $alias in
                # One of a kind will do: a driver takes all of them.
                acpi:LNRO0005*) case $bridges in *LNRO0005*) ;; *) bridges="$bridges $alias" ;; esac ;;
                pci:v00001AF4*) case $bridges in *v00001AF4*) ;; *) bridges="$bridges $alias" ;; esac ;;
            esac
        done
        [ -n "$bridges" ] && modprobe -qa $bridges

        devices=
        for file in /sys/bus/virtio/devices/*/modalias; do
            [ -e "$file" ] || continue
            read -r alias < "$file"
            case $alias in
                # The source of randomness: whoever needs some waits until there is.
                virtio:d00000004v*) devices="$alias $devices" ;;
                *) devices="$devices $alias" ;;
            esac
        done
        set -f
        [ -n "$devices$modules" ] && modprobe -qa $devices $(echo "$modules" | tr , ' ')
        set +f

        """

    /// Starts the system that is on a disk in place of this one. Comes back where there is none, having said so.
    static let rootScript = """
        # The devices that may hold it, the likeliest first.
        candidates() {
            case $root in
                auto)
                    for device in /dev/vda[0-9]* /dev/vda; do
                        [ -b "$device" ] && echo "$device"
                    done ;;
                LABEL=* | UUID=*) findfs "$root" 2>/dev/null ;;
                *) test -b "$root" && echo "$root" ;;
            esac
        }

        # Whether the program $1 is in the system at /mnt: what its links lead to is meant from there.
        holds() {
            path=$1 links=0
            while [ -L "/mnt$path" ]; do
                links=$((links + 1))
                [ "$links" -gt 16 ] && return 1
                target=$(readlink "/mnt$path")
                case $target in
                    /*) path=$target ;;
                    *) path=${path%/*}/$target ;;
                esac
            done
            [ -f "/mnt$path" ] && [ -x "/mnt$path" ]
        }

        # Mounts $1 at /mnt; ext4 first, which the kernel would try after it had complained about others.
        attach() {
            mount -t ext4 ${rootflags:+-o "$rootflags"} "$1" /mnt 2>/dev/null ||
                mount ${rootflags:+-o "$rootflags"} "$1" /mnt 2>/dev/null
        }

        # A driver that is in shows its disks at once; a slow host gets five seconds.
        tries=50
        [ -d /sys/bus/virtio/devices ] || tries=0
        while devices=$(candidates); [ -z "$devices" ] && [ "$tries" -gt 0 ]; do
            tries=$((tries - 1))
            usleep 100000
        done

        why=
        for device in $devices; do
            if ! attach "$device"; then
                why="${why}init: $device holds no file system that this kernel mounts${rootflags:+ with $rootflags}
        "
                continue
            fi
            if holds "$init"; then
                for directory in dev proc sys; do
                    mkdir -p "/mnt/$directory" 2>/dev/null
                    mount --move "/$directory" "/mnt/$directory"
                done
                # systemd asks for it, and the disk need not have this kernel's modules.
                [ -d /lib/modules ] && modprobe -q autofs4
                exec env -i HOME=/ TERM=linux PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
                    switch_root /mnt "$init"
            fi
            why="${why}init: $device holds no $init that could be started
        "
            umount /mnt
        done
        if [ -n "$why" ]; then
            printf %s "$why"
        elif [ "$root" = auto ]; then
            echo "init: there is no disk to start from"
        else
            disks=$(cd /sys/class/block 2>/dev/null && echo *)
            [ "$disks" = '*' ] && disks=none
            echo "init: windhover.root=$root is not there; the block devices are: ${disks:-none}"
        fi
        echo "init: no system on a disk was started: this is the small root"

        """

    /// Gives eth0 an address. Before a script that is to be run, it waits for that, for as long as five seconds; a person need
    /// not.
    static let networkScript = """
        set -f
        case $ip in
            off) ;;
            dhcp)
                ip link set eth0 up
                if [ -n "$script" ]; then
                    udhcpc -i eth0 -s /lib/windhover/lease -n -t 5 -T 1 >/dev/null 2>&1 ||
                        echo "init: eth0 got no address by DHCP"
                else
                    udhcpc -i eth0 -s /lib/windhover/lease -t 5 -T 1 -A 10 >/dev/null 2>&1 &
                fi ;;
            *)
                address=${ip%%,*} rest=
                case $ip in *,*) rest=${ip#*,} ;; esac
                router=${rest%%,*} dns=
                case $rest in *,*) dns=${rest#*,} ;; esac
                interface=eth0 ip=${address%/*} mask=
                case $address in */*) mask=${address#*/} ;; esac
                export interface ip mask router dns
                sh /lib/windhover/lease bound || echo "init: windhover.ip=$address is not an address that eth0 takes" ;;
        esac
        set +f

        """

    /// Gives the console's ports their names in /dev/virtio-ports, as udev does elsewhere. They come one by one, by messages: it waits
    /// for all of them, a second at most.
    static let portsScript = """
        mkdir -p /dev/virtio-ports
        tries=100
        while [ "$tries" -gt 0 ]; do
            named=0
            for file in /sys/class/virtio-ports/*/name; do
                # Not there before the name is.
                [ -e "$file" ] || continue
                read -r name < "$file"
                port=${file%/name}
                ln -sf "../${port##*/}" "/dev/virtio-ports/$name"
                named=$((named + 1))
            done
            [ "$named" -ge "$ports" ] && break
            tries=$((tries - 1))
            usleep 10000
        done

        """

    /// What udhcpc calls with a lease in its environment.
    static let leaseScript = """
        #!/bin/sh
        case $1 in
            deconfig)
                ip address flush dev "$interface"
                ip link set "$interface" up ;;
            bound | renew)
                # A lease that is renewed leaves its connections alone.
                if ! ip address show dev "$interface" | grep -q "inet $ip/"; then
                    ip address flush dev "$interface"
                    ip link set "$interface" up
                    ip address add "$ip/${mask:-24}" broadcast + dev "$interface" || exit 1
                fi
                for gateway in $router; do
                    [ "$1" = renew ] && ip route | grep -q "^default via $gateway " && break
                    # A router may lie outside of the network: then the way to it is said first.
                    ip route add default via "$gateway" dev "$interface" 2>/dev/null || {
                        ip route add "$gateway" dev "$interface"
                        ip route add default via "$gateway" dev "$interface"
                    }
                    break
                done
                {
                    [ -n "$domain" ] && echo "search $domain"
                    for server in $(echo "$dns" | tr , ' '); do echo "nameserver $server"; done
                } > /etc/resolv.conf ;;
        esac
        exit 0

        """
}
