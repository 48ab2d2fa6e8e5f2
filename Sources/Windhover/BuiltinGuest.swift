internal import CBuiltinGuest

/// The guest that is built in: an ELF image with a PVH entry, from guests/builtin.
public enum BuiltinGuest {
    /// Its bytes, as `guests/build builtin` makes them.
    public static var image: [UInt8] {
        unsafe [UInt8](UnsafeRawBufferPointer(start: cbuiltin_guest_image(), count: Int(cbuiltin_guest_size())))
    }
}
