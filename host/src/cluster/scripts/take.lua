-- Takes a partition for a node: raises its epoch, which fences its owner. Returns all that it holds.
-- KEYS: the partition, its waiting events. ARGV: the node's number, the highest epoch that the node knows, the prefix of
-- channels, the message to the owner before.
-- A partition that Redis does not know, or not any more, begins with the time: epochs go up even over a loss of all data.
local known = redis.call('HGET', KEYS[1], 'epoch') or redis.call('TIME')[1]
local epoch = math.max(tonumber(known), tonumber(ARGV[2])) + 1
local before = redis.call('HGET', KEYS[1], 'owner')
if before and before ~= ARGV[1] then
  redis.call('PUBLISH', ARGV[3] .. before, ARGV[4])
end
local sequence = redis.call('HGET', KEYS[1], 'sequence') or '0'
redis.call('HSET', KEYS[1], 'epoch', epoch, 'owner', ARGV[1], 'sequence', sequence, 'b' .. epoch, sequence)
redis.call('HDEL', KEYS[1], 'b' .. (epoch - 16))
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])}
