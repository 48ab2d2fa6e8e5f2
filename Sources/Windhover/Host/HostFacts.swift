import VMCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// What was found on a host: only observations, so that a test can feed any host to `HostReport`.
public struct HostFacts: Hashable, Sendable {
    /// The outcome of opening /dev/kvm and asking it.
    public enum KVMDevice: Hashable, Sendable {
        case missing
        /// There, and not this user's to open, or not answering: the errno.
        case closed(Int32)
        case open(KVMFacts)
    }

    /// What an open /dev/kvm said.
    public struct KVMFacts: Hashable, Sendable {
        /// 12 since Linux 2.6.22; nil where it was not asked.
        public var apiVersion: Int32?
        /// The most vCPUs of a guest; 0 where it does not say.
        public var maximumCPUs: Int
        /// Names of capabilities that Windhover needs and this host lacks.
        public var missingRequired: [String]
        /// Names of capabilities that it would use and this host lacks.
        public var missingOptional: [String]
        public init(
            apiVersion: Int32? = nil, maximumCPUs: Int = 0, missingRequired: [String] = [],
            missingOptional: [String] = []
        ) {
            self.apiVersion = apiVersion
            self.maximumCPUs = maximumCPUs
            self.missingRequired = missingRequired
            self.missingOptional = missingOptional
        }
    }

    /// The engine that `--engine auto` takes here.
    public struct EngineFacts: Hashable, Sendable {
        /// "kvm" or "interpreter".
        public var name: String
        /// A phrase.
        public var reason: String
        public init(name: String, reason: String) {
            self.name = name
            self.reason = reason
        }
    }

    /// The processor's vendor string, as `GenuineIntel`.
    public var vendor = ""
    public var processor = ""
    public var processors = 0
    public var flags: Set<String> = []
    public var kvm = KVMDevice.missing
    /// nil where none was looked for, and KVM is all there is.
    public var engine: EngineFacts?
    /// Names of the loaded kernel modules and built-in ones with parameters: /sys/module.
    public var modules: Set<String> = []
    public var kernelRelease = ""
    public var isRoot = false
    /// The group that owns /dev/kvm, where it has a name.
    public var kvmGroup: String?
    public var memoryTotal: UInt64 = 0
    public var memoryAvailable: UInt64 = 0
    public var hugePagesFree: UInt64 = 0
    /// Bytes of one reserved huge page.
    public var hugePageSize: UInt64 = 0
    /// The setting in brackets of transparent_hugepage/enabled; nil where the kernel has none.
    public var transparentHugePages: String?
    /// Programs that fetching needs and PATH lacks.
    public var missingPrograms: [String] = []
    /// Whether PATH has passt, which `--net user` starts.
    public var hasPasst = false
    /// Whether there is a /dev/net/tun, which `--net tap:NAME` opens.
    public var hasTap = false
    public var cacheDirectory: String?
    public var images: [String] = []

    public init() {}
}

extension HostFacts {
    /// Looks at this host.
    ///
    /// - Parameters:
    ///   - store: where images are kept; nil where there is no place.
    ///   - askKVM: asks an open /dev/kvm; the descriptor stays the caller's.
    public static func gather(store: ImageStore?, askKVM: (Int32) -> KVMFacts) -> HostFacts {
        var facts = HostFacts()
        facts.readProcessor(text("/proc/cpuinfo"))
        facts.readMemory(text("/proc/meminfo"))
        facts.transparentHugePages = selected(text("/sys/kernel/mm/transparent_hugepage/enabled"))
        facts.modules = Set(HostFile.names(in: "/sys/module"))
        facts.kernelRelease = text("/proc/sys/kernel/osrelease").split(separator: "\n").first.map(String.init) ?? ""
        facts.isRoot = geteuid() == 0

        let path = "/dev/kvm"
        let descriptor = unsafe open(path, O_RDWR | O_CLOEXEC)
        if descriptor >= 0 {
            facts.kvm = .open(askKVM(descriptor))
            close(descriptor)
        } else {
            let code = errno
            facts.kvm = code == ENOENT ? .missing : .closed(code)
        }
        facts.kvmGroup = groupName(of: path)

        facts.hasPasst = isOnPath("passt")
        facts.hasTap = unsafe access("/dev/net/tun", F_OK) == 0
        facts.missingPrograms = ["apt-get", "apt-cache", "dpkg-deb", "sha256sum"].filter { !isOnPath($0) }
        facts.cacheDirectory = store?.cacheDirectory
        facts.images = store?.list().map { "\($0.name) \($0.release)" } ?? []
        return facts
    }

    /// Reads the first processor of /proc/cpuinfo, and counts them.
    mutating func readProcessor(_ text: String) {
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1)
            guard let key = parts.first.map(Self.trimmed) else { continue }
            let value = parts.count > 1 ? Self.trimmed(parts[1]) : ""
            switch key {
            case "processor": processors += 1
            case "vendor_id" where vendor.isEmpty: vendor = value
            case "model name" where processor.isEmpty: processor = value
            case "flags" where flags.isEmpty: flags = Set(value.split(separator: " ").map(String.init))
            default: break
            }
        }
    }

    /// Reads /proc/meminfo, whose numbers are KiB but for counts of huge pages.
    mutating func readMemory(_ text: String) {
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1)
            guard parts.count == 2, let number = parts[1].split(separator: " ").first.flatMap({ UInt64($0) }) else {
                continue
            }
            let (bytes, overflow) = number.multipliedReportingOverflow(by: 1024)
            guard !overflow else { continue }
            switch parts[0] {
            case "MemTotal": memoryTotal = bytes
            case "MemAvailable": memoryAvailable = bytes
            case "HugePages_Free": hugePagesFree = number
            case "Hugepagesize": hugePageSize = bytes
            default: break
            }
        }
    }

    /// The word in brackets: `always [madvise] never`.
    static func selected(_ text: String) -> String? {
        guard let start = text.firstIndex(of: "["), let end = text[start...].firstIndex(of: "]") else { return nil }
        return String(text[text.index(after: start)..<end])
    }

    private static func trimmed(_ text: Substring) -> String {
        text.split(whereSeparator: \.isWhitespace).joined(separator: " ")
    }

    private static func text(_ path: String) -> String {
        String(decoding: (try? HostFile.contents(of: path, limit: 16 << 20)) ?? [], as: UTF8.self)
    }

    private static func isOnPath(_ program: String) -> Bool {
        guard let path = unsafe getenv("PATH") else { return false }
        return unsafe String(cString: path).split(separator: ":").contains { directory in
            unsafe access("\(directory)/\(program)", X_OK) == 0
        }
    }

    /// The name that /etc/group gives a file's group. Read here, because the C library's look-up loads
    /// shared objects, which a static program has not.
    private static func groupName(of path: String) -> String? {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else { return nil }
        for line in text("/etc/group").split(separator: "\n") {
            let fields = line.split(separator: ":", omittingEmptySubsequences: false)
            if fields.count >= 3, UInt32(fields[2]) == status.st_gid { return String(fields[0]) }
        }
        return nil
    }
}

extension HostFacts {
    /// Bytes of RAM of this host; nil where it does not say.
    public static func physicalMemory() -> UInt64? {
        let pages = sysconf(Int32(_SC_PHYS_PAGES))
        let size = sysconf(Int32(_SC_PAGESIZE))
        guard pages > 0, size > 0 else { return nil }
        return UInt64(pages).multipliedReportingOverflow(by: UInt64(size)).partialValue
    }
}
