import VMCore

/// Real-mode images: boot sectors and headerless code. They find a bare machine: no BIOS, and what `BIOSData`
/// leaves of one.
///
/// A boot sector is loaded and started at 0000:7C00 with SP 7C00 and DL 0x80, as a BIOS starts the first disk's. All
/// of the file is loaded, not only its first sector: there is no BIOS to read the rest with.
///
/// A headerless image is loaded at 0x10000 and started at 1000:0000, with DS and ES 0x1000 and a stack at 0000:8000.
/// It is known by its size, 64 KiB at most, and by how it begins: with CLI, or a jump to within itself.
enum Flat {
    /// What fits between a boot sector's place and the EBDA.
    static let bootSectorLimit = BootLayout.extendedBIOSData.rawValue - BootLayout.bootSector.rawValue
    static let flatLimit: UInt64 = 0x1_0000

    static func isBootSector(_ image: ImageBytes) -> Bool { image.integer(UInt16.self, at: 510) == 0xAA55 }

    static func isFlat(_ image: ImageBytes) -> Bool {
        guard image.count <= flatLimit, let first = image.integer(UInt8.self, at: 0) else { return false }
        switch first {
        case 0xFA: return image.count > 1
        case 0xEB:
            guard let displacement = image.integer(Int8.self, at: 1), displacement >= 0 else { return false }
            return 2 + UInt64(displacement) < image.count
        case 0xE9:
            guard let displacement = image.integer(Int16.self, at: 1), displacement >= 0 else { return false }
            return 3 + UInt64(displacement) < image.count
        default: return false
        }
    }

    static func load(
        _ image: ImageBytes, isBootSector: Bool, plan: inout MemoryPlan, configuration: BootConfiguration
    ) throws(BootError) -> EntryPoint {
        guard configuration.initrds.isEmpty, configuration.commandLine.isEmpty else {
            throw .unsupported(
                image: image.name, problem: "it is a real-mode image, which takes no initrd and no command line")
        }
        let limit = isBootSector ? bootSectorLimit : flatLimit
        guard image.count <= limit else {
            if isBootSector {
                throw .notAKernel(
                    image: image.name, kind: "a disk image",
                    advice: "there is no BIOS to start it; give the kernel inside it")
            }
            throw .imageTooLarge(image: image.name, count: image.count, limit: limit)
        }
        let address = isBootSector ? BootLayout.bootSector : BootLayout.flat
        try plan.claim("the interrupt vectors", at: GuestAddress(0), count: BIOSData.end)
        try plan.claim(image.name, at: address, count: image.count)
        try image.copy(into: plan.memory, at: address)
        try BIOSData.place(in: plan.memory)
        return isBootSector
            ? EntryPoint(.real16(cs: 0, ip: 0x7C00, sp: 0x7C00, dx: 0x80), method: "boot sector")
            : EntryPoint(.real16(cs: 0x1000, ip: 0, sp: 0x8000, dx: 0), method: "real mode")
    }
}
