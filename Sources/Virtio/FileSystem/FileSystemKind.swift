internal import CHost
internal import Glibc

/// What a file system of the host's is to a share: whether a guest may look into it, and who has to answer.
enum FileSystemKind: Sendable {
    /// The host kernel's own: the memory, descriptors and environment of the host's processes, this one's among them, the settings
    /// of its devices, other programs' terminals and queues. A guest sees where it is mounted, and nothing below.
    case kernels
    /// On the host's disks or in its memory: a call ends by itself, and mostly at once.
    case local
    /// A server or a process has to answer, and may never do it.
    case remote

    /// Of the file system that a descriptor is on. May wait for it.
    init(of file: OpenDescriptor) {
        switch chost_file_system(file.number) {
        // In order: proc, sysfs, debugfs, tracefs, cgroup, cgroup2, bpf, securityfs, configfs, efivarfs, selinuxfs, pstore, binfmt_misc.
        // Source: statfs(2), as are the others.
        case 0x9FA0, 0x6265_6572, 0x6462_6720, 0x7472_6163, 0x27_E0EB, 0x6367_7270, 0xCAFE_4A11, 0x7363_6673, 0x6265_6570,
            0xDE5E_81E4, 0xF97C_FF8C, 0x6165_676C, 0x4249_4E4D:
            self = .kernels
        // devpts, mqueue, hugetlbfs, autofs (a name looked up in it mounts something), rpc_pipefs, nsfs, fusectl, nfsd, smackfs,
        // resctrl, xenfs, apparmorfs, binder, functionfs.
        case 0x1CD1, 0x1980_0202, 0x9584_58F6, 0x0187, 0x6759_6969, 0x6E73_6673, 0x6573_5543, 0x6E66_7364, 0x4341_5D53,
            0x0765_5821, 0xABBA_1974, 0x5A3C_69F0, 0x6C6F_6F70, 0x0A64_7361:
            self = .kernels
        // What is mounted nowhere, but may be found behind a file that was bound: pipes, sockets, processes, block devices, anonymous
        // inodes, buffers and guest memory of others.
        case 0x5049_5045, 0x534F_434B, 0x5049_4446, 0x6264_6576, 0x0904_1934, 0x444D_4142, 0x474D_454D, 0x5345_434D:
            self = .kernels
        // ext2 to ext4, XFS, Btrfs, F2FS, Bcachefs, ZFS, JFS, NILFS, ReiserFS, UBIFS, JFFS2; tmpfs, ramfs.
        case 0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0xCA45_1A4E, 0x2FC1_2FC1, 0x3153_464A, 0x3434, 0x5265_4973, 0x2405_1905,
            0x72B6, 0x0102_1994, 0x8584_58F6:
            self = .local
        // overlayfs, aufs; SquashFS, EROFS, cramfs, romfs, ISO 9660, UDF; FAT, exFAT, NTFS, HFS+.
        case 0x794C_7630, 0x6175_6673, 0x7371_7368, 0xE0F5_E1E2, 0x28CD_3D45, 0x7275, 0x9660, 0x1501_3346, 0x4D44, 0x2011_BAB0,
            0x7366_746E, 0x482B:
            self = .local
        default: self = .remote
        }
    }

    /// The device that devtmpfs has, which says of itself that it is tmpfs; nil where it is mounted nowhere. It is one for as long as
    /// the host runs.
    /// - Parameter processes: a descriptor of /proc/self/fd.
    static func deviceNodes(_ processes: OpenDescriptor) -> UInt64? {
        let file = unsafe openat(processes.number, "../mountinfo", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        let list = OpenDescriptor(file)
        var text: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 16 << 10)
        while text.count < 4 << 20 {
            let count = unsafe piece.withUnsafeMutableBytes { unsafe Glibc.read(list.number, $0.baseAddress, $0.count) }
            guard count > 0 else { break }
            text += piece.prefix(count)
        }
        return deviceNodes(in: text)
    }

    /// The same from what /proc/self/mountinfo holds: number, parent, device, root, place, options, optional fields up to a dash, type.
    /// Source: proc(5).
    static func deviceNodes(in list: [UInt8]) -> UInt64? {
        for line in list.split(separator: UInt8(ascii: "\n")) {
            let fields = line.split(separator: UInt8(ascii: " "))
            guard let dash = fields.firstIndex(of: [UInt8(ascii: "-")]), dash > 5, dash + 1 < fields.count,
                fields[dash + 1].elementsEqual("devtmpfs".utf8)
            else { continue }
            let numbers = fields[2].split(separator: UInt8(ascii: ":")).map { UInt32(String(decoding: $0, as: UTF8.self)) }
            guard numbers.count == 2, let major = numbers[0], let minor = numbers[1] else { continue }
            return UInt64(major) << 32 | UInt64(minor)
        }
        return nil
    }
}
