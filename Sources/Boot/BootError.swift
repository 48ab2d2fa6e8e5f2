public import VMCore

/// Why an image cannot be started. Each text names the file and, where there is one, the way out.
public enum BootError: Error, Hashable {
    // The file.
    case noSuchFile(path: String)
    case permissionDenied(path: String)
    case unreadable(path: String, errno: Int32)
    /// A directory, a pipe, a device: what it is, with its article.
    case notRegularFile(path: String, kind: String)
    case emptyFile(path: String)
    case cannotWrite(path: String, errno: Int32)

    // What is in it.
    /// Nothing in the bytes says how to start them.
    case unrecognized(image: String)
    /// Something known that is no kernel: what it is, with its article, and what to do.
    case notAKernel(image: String, kind: String, advice: String)
    case wrongArchitecture(image: String, architecture: String)
    /// The image ends before what its headers promise.
    case truncated(image: String, needs: UInt64, has: UInt64)
    /// A field contradicts the format.
    case malformed(image: String, problem: String)
    /// Well-formed, but it asks for what this monitor does not do.
    case unsupported(image: String, problem: String)
    case corruptCompression(image: String, format: String)
    /// Unpacks to more than `limit` bytes.
    case unpacksTooLarge(image: String, format: String, limit: UInt64)
    /// Too large for where it must lie.
    case imageTooLarge(image: String, count: UInt64, limit: UInt64)

    // How it meets the guest's memory.
    /// `what` must lie at `address`, where the guest has no RAM. `memory` is its size.
    case outsideMemory(what: String, address: GuestAddress, count: UInt64, memory: UInt64)
    case overlap(what: String, other: String, address: GuestAddress)
    /// No free run of RAM below the limit the kernel set.
    case noRoom(what: String, count: UInt64, below: UInt64, memory: UInt64)
    case memory(GuestMemoryError)

    // What goes with it.
    case commandLineTooLong(count: Int, limit: Int)
    case commandLineByte(UInt8)
    case tooManyRanges(count: Int, limit: Int)
    case badRange(name: String, address: GuestAddress, count: UInt64)
    /// ACPI tables that outgrow the BIOS area, or a configuration they cannot express.
    case acpi(problem: String)
}

extension BootError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .noSuchFile(let path):
            "\(path): no such file"
        case .permissionDenied(let path):
            "\(path): permission denied; make the file readable to this user"
        case .unreadable(let path, let code):
            "\(path): cannot be read: \(HostError.message(code))"
        case .notRegularFile(let path, let kind):
            "\(path) is \(kind); give a regular file"
        case .emptyFile(let path):
            "\(path) is empty"
        case .cannotWrite(let path, let code):
            "\(path): cannot be written: \(HostError.message(code))"
        case .unrecognized(let image):
            "\(image) is not a kernel this monitor knows: "
                + "give a Linux bzImage or vmlinux, a Multiboot or PVH kernel, or a boot sector"
        case .notAKernel(let image, let kind, let advice):
            "\(image) is \(kind), not a kernel; \(advice)"
        case .wrongArchitecture(let image, let architecture):
            "\(image) is for \(architecture); give a kernel for x86-64"
        case .truncated(let image, let needs, let has):
            "\(image) is truncated: its headers promise \(needs) bytes, it has \(has); fetch or build it again"
        case .malformed(let image, let problem):
            "\(image) is malformed: \(problem)"
        case .unsupported(let image, let problem):
            "\(image) cannot be started: \(problem)"
        case .corruptCompression(let image, let format):
            "\(image) is damaged: its \(format) data does not unpack; fetch or build it again"
        case .unpacksTooLarge(let image, let format, let limit):
            "\(image): its \(format) data unpacks to more than \(Self.size(limit)); "
                + "give the guest more memory with --memory"
        case .imageTooLarge(let image, let count, let limit):
            "\(image) has \(count) bytes, and an image of its kind at most \(limit)"
        case .outsideMemory(let what, let address, let count, let memory):
            if memory > 0, GuestMemory.holeStart <= address, address < GuestMemory.holeEnd {
                "\(what) at \(address) lies in the addresses kept for devices (\(GuestMemory.holeStart) to 4 GiB)"
            } else {
                "\(what) needs \(count) bytes at \(address), and the guest has \(Self.size(memory)); "
                    + "give it more with --memory"
            }
        case .overlap(let what, let other, let address):
            "\(what) at \(address) overlaps \(other)"
        case .noRoom(let what, let count, let below, let memory):
            "\(what) of \(count) bytes does not fit below \(GuestAddress(below)) beside the kernel "
                + "in \(Self.size(memory)); give the guest more with --memory"
        case .memory(let error):
            error.description
        case .commandLineTooLong(let count, let limit):
            "the kernel command line has \(count) bytes and this kernel takes at most \(limit); shorten --append"
        case .commandLineByte(let byte):
            "the kernel command line contains the control character 0x\(String(byte, radix: 16)); "
                + "remove it from --append"
        case .tooManyRanges(let count, let limit):
            "the memory map has \(count) ranges and the boot protocol holds \(limit)"
        case .badRange(let name, let address, let count):
            "\(name) at \(address) with \(count) bytes is no range of addresses"
        case .acpi(let problem):
            "ACPI tables cannot be made: \(problem)"
        }
    }

    /// A size as a person would give it: MiB where whole, else bytes.
    private static func size(_ bytes: UInt64) -> String {
        bytes % ByteCount.mebibyte == 0 ? "\(bytes / ByteCount.mebibyte) MiB" : "\(bytes) bytes"
    }
}

/// Runs a guest memory access and gives its error this module's type.
func placing<Value>(_ body: () throws(GuestMemoryError) -> Value) throws(BootError) -> Value {
    do { return try body() } catch { throw .memory(error) }
}
