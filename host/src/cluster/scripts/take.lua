-- Takes a partition for a node: raises its epoch, which fences its owner. Returns all that it holds.
-- KEYS: the partition. ARGV: the node's number.
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
local sequence = redis.call('HGET', KEYS[1], 'sequence') or '0'
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'sequence', sequence, 'b' .. epoch, sequence)
redis.call('HDEL', KEYS[1], 'b' .. (epoch - 16))
return redis.call('HGETALL', KEYS[1])
