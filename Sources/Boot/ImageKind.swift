/// What an image is, seen from its bytes.
public enum ImageKind: Hashable, Sendable {
    /// A Linux kernel as distributions ship it.
    case bzImage
    /// An x86 ELF executable: a Linux vmlinux, or a kernel with a PVH note.
    case elf
    case multiboot1
    case multiboot2
    /// A kernel that `PreparedKernel` laid out for mapping.
    case prepared
    /// Real-mode code for 0000:7C00, with a boot sector's signature.
    case bootSector
    /// Real-mode code without any header; see `Flat`.
    case flat
    /// Packed as a whole, with the format's name; what is inside is seen when it is unpacked.
    case compressed(String)

    /// Recognises an image.
    ///
    /// What carries the most definite mark is tried first. Two kinds may share a file: a Multiboot kernel is mostly an
    /// ELF file, and a bzImage mostly an EFI program.
    /// - Throws: `BootError`: what it is instead, where that is known, else `unrecognized`.
    public init(_ image: ImageBytes) throws(BootError) {
        if PreparedKernel.isPrepared(image) {
            self = .prepared
        } else if BzImage.isBzImage(image) {
            self = .bzImage
        } else if ELF.isELF(image) {
            // An ELF file for another processor is refused as such, whatever else it holds.
            _ = try ELF(image)
            self = Multiboot2.isMultiboot(image) ? .multiboot2 : Multiboot1.isMultiboot(image) ? .multiboot1 : .elf
        } else if let format = Compression(image) {
            self = .compressed(format.rawValue)
        } else if Multiboot2.isMultiboot(image) {
            self = .multiboot2
        } else if Multiboot1.isMultiboot(image) {
            self = .multiboot1
        } else {
            try Self.refuseKnown(image)
            if Flat.isBootSector(image) {
                self = .bootSector
            } else if Flat.isFlat(image) {
                self = .flat
            } else {
                throw .unrecognized(image: image.name)
            }
        }
    }

    /// Names what is no kernel for this machine, as far as it is commonly mistaken for one.
    private static func refuseKnown(_ image: ImageBytes) throws(BootError) {
        func wrong(_ architecture: String) -> BootError {
            .wrongArchitecture(image: image.name, architecture: architecture)
        }
        func other(_ kind: String, _ advice: String) -> BootError {
            .notAKernel(image: image.name, kind: kind, advice: advice)
        }
        // Linux images of other processors. Source: [LINUX-ARM64-BOOT], [LINUX-RISCV-BOOT].
        if image.holds("ARM\u{64}", at: 0x38) { throw wrong("64-bit ARM") }
        if image.holds("RSC\u{05}", at: 0x38) || image.holds("RISCV", at: 0x30) { throw wrong("RISC-V") }
        if image.integer(UInt32.self, at: 0x24) == 0x016F_2818 { throw wrong("32-bit ARM") }
        if image.integer(UInt32.self, at: 0) == 0x5619_0527 {
            throw other("a U-Boot image", "give the kernel inside it")
        }
        if image.holds("070701", at: 0) || image.holds("070702", at: 0) {
            throw other("a cpio archive", "give it with --initrd")
        }
        if image.holds("CD001", at: 0x8001) {
            throw other("a CD image", "give the kernel inside it")
        }
        if image.integer(UInt32.self, at: 0) == 0xFB49_4651 {
            throw other("a qcow2 disk image", "give the kernel inside it")
        }
        if image.holds("EFI PART", at: 512) {
            throw other("a disk image", "there is no firmware to start it; give the kernel inside it")
        }
        try refuseEFI(image)
    }

    /// EFI programs: named with the processor they are for. Source: [PECOFF] machine types.
    static func refuseEFI(_ image: ImageBytes) throws(BootError) {
        guard image.holds("MZ", at: 0), let offset = image.integer(UInt32.self, at: 0x3C),
            image.holds("PE\0\0", at: UInt64(offset)),
            let machine = image.integer(UInt16.self, at: UInt64(offset) + 4)
        else { return }
        let architecture: String? =
            switch machine {
            case 0x014C, 0x8664: nil
            case 0x01C0, 0x01C2, 0x01C4: "32-bit ARM"
            case 0xAA64: "64-bit ARM"
            case 0x5032, 0x5064: "RISC-V"
            case 0x6232, 0x6264: "LoongArch"
            default: "another processor (PE machine 0x\(String(machine, radix: 16)))"
            }
        if let architecture { throw .wrongArchitecture(image: image.name, architecture: architecture) }
        throw .notAKernel(
            image: image.name, kind: "an EFI program",
            advice: "there is no EFI here; give the kernel's bzImage or vmlinux")
    }
}
