-- Puts all of a partition, of which Redis has lost something, unless another node has taken it since.
-- KEYS and ARGV: as of a commit, whose fields are all that the partition has.
local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch'))
if epoch and epoch > tonumber(ARGV[1]) then
  return {'fenced', redis.call('HGET', KEYS[1], 'b' .. (ARGV[1] + 1))}
end
redis.call('DEL', KEYS[1])
local at = 5
local stop = at + tonumber(ARGV[3])
while at < stop do
  local to = math.min(at + 4000, stop) - 1
  redis.call('HSET', KEYS[1], unpack(ARGV, at, to))
  at = to + 1
end
for i = 2, #KEYS do
  local field, channel, head, text, id, message = unpack(ARGV, at, at + 5)
  at = at + 6
  redis.call('HSET', KEYS[1], field, id)
  redis.call('DEL', KEYS[i])
  redis.call('XADD', KEYS[i], text, 'm', message)
  -- What the stream held before is gone: the node takes this as the next.
  redis.call('PUBLISH', channel, head .. id .. string.rep('\0', 16) .. message)
end
return {'done'}
